"""From the table to the files that other tools read: COCO JSON, PNG maps, a flat Parquet.

    select (reading, selection) -> write (coco, label_maps, segments; pictures stores the PNGs) -> say that it is complete (folder)

`run.export` is one export, from settings to summary; `formats` holds a module for each kind.

Needs `reading`, `storage` and Pillow. Knows nothing of Ray and models.
"""
