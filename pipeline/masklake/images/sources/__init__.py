"""The kinds of input: tar shards, tables of images, manifests, S3 inventories."""
