"""What people write today for the same work, to be measured beside masklake: see `jobs.benchmarks.whole_lake`."""
