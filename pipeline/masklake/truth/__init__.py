"""Ground truth: what people say is on the images, in the formats they say it in. Read by `evaluate` and `finetune` alike.

    settings -> open (place: what is there; which format claims it) -> Truth: categories, and one TruthImage per image
    coco_panoptic, coco_instances, label_maps   the formats, a module each
    classes                                     truth's categories and labels, matched by name
    match                                       truth's images and those of a table or folder, matched by file name
    pictures, masks -> regions                  one image's truth as an id map, class map, instances or masks; run wherever the image is

Needs `storage` and pycocotools, and of `images`, `inference` and `quality` how a file is decoded, a mask is encoded and pairs are counted.
Knows nothing of Ray, models and the table's rows.
"""
