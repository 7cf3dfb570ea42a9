"""Makes the kernel in memory a fixture."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from kernel_in_memory import Kernel

from agentos.kernel.workspace import Workspaces


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(Workspaces(tmp_path / "workspaces"))
