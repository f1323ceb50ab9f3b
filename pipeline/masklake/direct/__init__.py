"""A model called from Python, on the spot: no Ray, no table, and the same answers as the job's.

    pictures (whatever people call an image -> pixels) -> model (load, resize, forward, rows) -> masklake.results

Needs `images`, `inference` and the settings and stages of `segment`. Knows nothing of the command line, and opens no table.
"""
