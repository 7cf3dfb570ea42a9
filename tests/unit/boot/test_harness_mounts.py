"""What a Sandbox gives to a harness: less than it gives to a tool."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agentos.boot.harness_place import brainly
from agentos.sandbox.profile import Access, Mount, Network, Profile, standard

OPEN = replace(
    standard("open"),
    workspace=Access.WRITE,
    network=Network(inspect=True, private=("10.0.0.0/8",)),
    mounts=(Mount("/opt/a", "/a"), Mount("/opt/b", "/b", write=True)),
)


@pytest.mark.parametrize("declared", [OPEN, None])
def test_a_harness_leaves_nothing_for_another_session_and_reaches_nobody(declared: Profile | None) -> None:
    """Whatever the Sandbox says: no workspace, no network, and no place of the host that it could write to."""
    given = brainly(declared)
    assert (given.workspace, given.network) == (Access.NONE, None)
    assert not [mount for mount in given.mounts if mount.write]


def test_what_it_may_read_is_as_declared() -> None:
    """The mounts themselves stay."""
    assert [(mount.path, mount.at) for mount in brainly(OPEN).mounts] == [("/opt/a", "/a"), ("/opt/b", "/b")]
