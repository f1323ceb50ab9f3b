"""One of each kind of thing that masklake can gain by a module and a line: see tests/flow/test_additions.py."""
