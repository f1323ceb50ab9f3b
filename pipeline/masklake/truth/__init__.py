"""Ground truth: what people say is on the images, in the formats they say it in.

    open (which format, coco or label_maps) -> Truth: categories, and one TruthImage per image
    classes                                    truth's categories and the table's labels, matched by name
    match                                      truth's images and the table's, matched by file name
    regions, instances                         one image's truth as an id map or masks; run wherever the image is judged

Knows nothing of Ray, models and the table's rows.
"""
