"""The command line: one module a command, from arguments to exit code and the last line of JSON.

Needs every room below it. Knows nothing of how the work is done.
"""
