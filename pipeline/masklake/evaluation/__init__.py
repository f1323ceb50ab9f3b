"""How good a table's masks are: what is stored in it, against ground truth.

    settings, truth -> pairs (which row is which image's) -> scoring (groups of images, in process or on Ray) -> report -> page

`run.evaluate` is one evaluation, from settings to report. The figures are those of `masklake.quality`.
Needs `reading`, `truth`, `quality` and `pages`, `cluster` for large tables. Knows nothing of models, and of how a table came to be.
"""
