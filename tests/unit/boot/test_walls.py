"""What tenants declare about their walls, and how the room for logs is dealt out."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentos.abi.errors import UsageError
from agentos.abi.resource import Resource
from agentos.boot.walls import LEAST_SHARE, MIB, PLAIN, Walls, require_room, room_of, shares, walls_of
from agentos.manifests import validate_resource


def tenant(name: str, **limits: int) -> Resource:
    spec = {"limits": limits} if limits else {}
    found, faults = validate_resource({"apiVersion": "agentos/v1", "kind": "Tenant", "metadata": {"name": name}, "spec": spec})
    assert found is not None, faults
    return found


def test_what_is_declared_is_read() -> None:
    """Each field by itself; what is not declared is as a tenant that is not declared at all."""
    declared = [tenant("acme", connections=3, messageKiB=64, eventsPerSecond=5, logMiB=16), tenant("plain")]
    assert walls_of(declared) == {"acme": Walls(3, 64, 5, 16), "plain": PLAIN}


@pytest.mark.parametrize(("field", "value"), [("connections", 0), ("messageKiB", 8193), ("eventsPerSecond", 0), ("logMiB", 15)])
def test_limits_that_are_none_are_refused(field: str, value: int) -> None:
    """A server takes 0 for "no limit", and could not keep what is smaller than its own messages."""
    body = {"apiVersion": "agentos/v1", "kind": "Tenant", "metadata": {"name": "a"}, "spec": {"limits": {field: value}}}
    found, faults = validate_resource(body)
    assert found is None
    assert any(field in str(fault) for fault in faults)


def test_the_room_is_dealt_out_once() -> None:
    """What is declared, then even shares of the rest; the second tenant takes nothing from the first."""
    room = 10_000 * MIB
    walls = {"acme": Walls(log_mib=4000)}
    assert shares(room, ["one"], {}) == {"one": 5000 * MIB}
    assert shares(room, ["one", "two"], {}) == {"one": 5000 * MIB, "two": 5000 * MIB}
    dealt = shares(room, ["acme", "one", "two", "three"], walls)
    assert dealt == {"acme": 4000 * MIB, **dict.fromkeys(("one", "two", "three"), 2000 * MIB)}
    assert sum(dealt.values()) <= room
    assert shares(MIB, ["one"], {}) == {"one": LEAST_SHARE}


def test_what_the_disk_does_not_give_is_refused() -> None:
    """As soon as somebody declares something; where nobody can tell, or nobody declares, nothing is refused."""
    walls = {"acme": Walls(log_mib=1000)}
    require_room(1200 * MIB, ["acme", "default"], walls)
    for room, names in ((999 * MIB, ["acme"]), (1050 * MIB, ["acme", "default"])):
        with pytest.raises(UsageError, match="the disk gives"):
            require_room(room, names, walls)
    require_room(None, ["acme"], walls)
    require_room(MIB, ["default"], {})


def test_the_room_counts_what_logs_fill_already(tmp_path: Path) -> None:
    """So a restart does not take away from a tenant what it has filled; a folder that is not there yet has the disk's room."""
    assert room_of(tmp_path / "none" / "yet") > 0
    (tmp_path / "log").write_bytes(b"x" * 8 * MIB)
    assert room_of(tmp_path) > 6 * MIB
