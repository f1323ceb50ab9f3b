"""One run of the main job.

    run -> plan (digests) -> flow, the wiring on Ray Data, of the stages, which are plain functions -> report, gallery

Needs `images`, `inference`, `table`, `pages` and `cluster`. Knows nothing of the command line.
"""
