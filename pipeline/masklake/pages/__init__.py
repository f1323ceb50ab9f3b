"""Pages from templates, and pictures of rows for them.

Needs the masks of `table`, Jinja2 and Pillow. Knows nothing of runs, storage and models.
"""
