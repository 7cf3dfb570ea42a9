"""What holds for all tests: no deadlines of hypothesis, and modules that are compiled for all the processes that they start."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# A test says what holds, not how long a machine that others use takes to see it.
settings.register_profile("busy", deadline=None)
settings.load_profile("busy")

if sys.dont_write_bytecode:
    # Whoever asks Python to leave no bytecode beside the sources (containers often do) would have every process compile all of
    # them again: more than half of what a short command costs. So it is kept elsewhere, for this process and for those that it
    # starts, the workers first of all. Python itself notices when a source has changed.
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(Path(__file__).resolve().parents[1] / ".pytest_cache" / "bytecode")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many cases the fuzzers ran."""
    told = [
        value
        for report in terminalreporter.getreports("passed")
        for name, value in report.user_properties
        if name == "fuzzed cases"
    ]
    if told:
        terminalreporter.write_line(f"fuzzed: {sum(told)} cases")
