"""masklake: a lake of images in, a table of segmentation masks out.

    discover -> plan -> load -> segment -> write -> commit -> report
    (---- driver ----)  (-- tasks, actors --)  (---- driver ----)

    config, schema, errors   what can be asked, what is on disk, what can go wrong
    storage                  the only place that knows fsspec and s3fs
    inputs                   discover, plan, decode
    inference                checkpoint, preprocess, segmenter, postprocess, rle: no Ray, no S3, no Arrow
    outputs                  rows, write, table, report, gallery, masks
    stages                   the stages that run on the cluster, as plain functions
    flow                     with training.flow, the only place that knows Ray
    job                      one run, from settings to summary
    reading                  the table for those who use it
    export                   the table as COCO JSON, PNG maps, flat Parquet
    truth, evaluation        ground truth, and the table scored against it
    quality                  PQ, mIoU, AP
    training                 fine-tuning; generated scenes and the demo model

Nothing is imported here, so that `masklake.inference` can be taken to a GPU machine that has torch and transformers alone.
"""

__version__ = "0.2.0"
