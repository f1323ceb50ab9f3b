"""PQ, AP and mIoU as statistics that add up.

Needs numpy and pycocotools. Knows nothing of tables, files and models.
"""
