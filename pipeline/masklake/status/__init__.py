"""A table and its runs as they look from outside: from the log, the markers and the reports, without Ray and without a model.

    past (its runs), coverage (rows and classes by partition), moved (classes that changed), lag (what the lake has and the table not)

`run.status` puts them together, `words` as lines for a person.

Needs `table` and DuckDB, and the planning of `segment` for the lag. Knows nothing of masks, and changes nothing.
"""
