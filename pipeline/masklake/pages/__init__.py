"""The parts that pages are made of, and pictures of rows.

Needs `table.masks`. Knows nothing of runs, storage and models.
"""
