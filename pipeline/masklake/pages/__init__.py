"""Pages from templates, and pictures of rows for them.

Needs `table.masks` and Jinja2. Knows nothing of runs, storage and models.
"""
