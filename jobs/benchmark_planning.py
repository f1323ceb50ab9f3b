"""Measure planning against a large table: a real Delta table of the columns that planning reads, and a listing that costs next to nothing.

    python -m jobs.benchmark_planning --rows 100000000 --older 20000000 --table /tmp/table      # write it, and plan one day
    python -m jobs.benchmark_planning --rows 100000000 --table /tmp/table --listed 1000000      # plan a million images of all days
    python -m jobs.benchmark_planning --rows 100000000 --table /tmp/table --listed 1000000 --ray      # on a local Ray

One of a hundred listed images has changed since the table was written. Shows on stderr how it goes on; the last line is one JSON object.
"""
