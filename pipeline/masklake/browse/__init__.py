"""A table of masks to look at: a local page with filters, pictures, ground truth, and lists of images to hand on.

    settings -> serve (address, token) -> app (routes; guard: who may ask) -> found (a question's answer) -> index (rows, segments)
    asked       what a page asks for, and the same as SQL
    rows        masks of single rows, from the table's files
    pictures    photographs, reduced, and what is painted over them; kept in bounded memory
    truths      ground truth beside an answer, and the difference
    taking      what is found as an SQL condition, a list of images and commands

Needs `reading`, `truth`, `evaluation`, `export`, DuckDB and Starlette; writes nothing but scratch files. Knows nothing of Ray and models.
"""
