"""A checkpoint made into a folder of its own: safetensors, and everything that goes with them.

Needs `inference`, for the checkpoint, and `storage`. Knows nothing of images, Ray and what a table holds.
"""
