"""Which images there are, and their pixels: discover lists them, fetch reads bytes, decode makes RGB.

Needs `storage`. Knows nothing of models, tables and Ray. `sources` holds a module for each kind of input.
"""
