"""The three places where policy is decided, each real."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from opa_server import OperatorsServer

from agentos.policy.adapters.embedded import EmbeddedFactory
from agentos.policy.adapters.managed import ManagedFactory
from agentos.policy.port import PolicyEngineFactory


@pytest.fixture
def places(tmp_path: Path) -> Iterator[dict[str, PolicyEngineFactory]]:
    """A factory per place: in the process, a server of our own, and a server that somebody else runs."""
    server = OperatorsServer(tmp_path / "operator")
    yield {"embedded": EmbeddedFactory(), "managed": ManagedFactory(), "remote": server.factory()}
    server.stop()
