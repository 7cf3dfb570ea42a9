"""The fabricated record of the unit tests."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def record() -> ModuleType:
    """The classes that write a record: `tests/unit/audit/conftest.py`."""
    path = Path(__file__).parents[2] / "unit" / "audit" / "conftest.py"
    spec = importlib.util.spec_from_file_location("fabricated_record", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
