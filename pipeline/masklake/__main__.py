"""`python -m masklake` is the `masklake` command."""

from masklake.commands.cli import run

run()
