"""PQ, AP and mIoU as statistics that add up.

Needs numpy and pycocotools. Knows nothing of tables, files and models.
"""

MAX_DETECTIONS = 100
"""Of each image and class, so many detections count, those of the highest scores: pycocotools' default."""
