"""From pixels to segments: checkpoint, families, preprocess, segmenter, postprocess, run lengths.

Needs torch, transformers, numpy, Pillow and pycocotools alone, so that it can be taken to any GPU machine; only `source`, which fetches
checkpoints, knows `storage`. Knows nothing of Ray, Arrow and tables.
"""
