"""Keeping a table: compact its files, drop superseded rows, erase images, vacuum, and find images that the lake has no more.

Needs `table` and `storage`. Knows nothing of models and Ray.
"""
