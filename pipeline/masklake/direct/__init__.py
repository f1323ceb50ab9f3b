"""A model called from Python, on the spot: no Ray, no table, and the same answers as the job's.

pictures (whatever people call an image -> pixels) -> model (load, resize, forward, rows) -> masklake.results
"""
