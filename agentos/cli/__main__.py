"""`python -m agentos.cli` is the command `agentos`."""

from agentos.cli.main import run

run()
