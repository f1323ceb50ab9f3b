"""What a GPU makes of it, settled by one command: `python -m jobs.benchmarks.gpu --output gpu.json`.

Each part runs in a process of its own, with its own deadline: what one part breaks, the others do not lose. A part writes its results as
it goes, so that the end of its time costs only what was not yet measured.
"""
