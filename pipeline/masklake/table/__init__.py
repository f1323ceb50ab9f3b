"""The table of masks: its definition, its log, rows and files, who writes, and how it is read.

Needs `storage`, deltalake, pyarrow and DuckDB. Knows nothing of images' bytes, models and Ray.
"""
