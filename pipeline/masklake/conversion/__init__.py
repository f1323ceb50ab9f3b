"""A checkpoint made into a folder of its own: safetensors, and everything that goes with them."""
