"""Every class of fault has an asset that is named for it; what is said about each is a snapshot."""

from __future__ import annotations

from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from agentos.drivers.adapters.play import check_play
from agentos.manifests import load

ROOT = Path(__file__).parents[2] / "assets" / "manifests"
NAMES = sorted(path.name for path in ROOT.iterdir() if not path.name.startswith("."))


@pytest.mark.parametrize("name", NAMES)
def test_each_flaw_is_told_with_place_and_mend(
    name: str, snapshot: SnapshotAssertion, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """What is said about a flaw names the file, line and column, and how to mend it."""
    monkeypatch.chdir(ROOT)
    from_conftest = request.getfixturevalue("rego_check")
    loaded = load([name], check_policies=from_conftest, check_play=check_play)
    assert loaded.faults, "an asset is named for a flaw that nobody sees"
    assert "\n".join(f"{fault}\n{fault.excerpt}".rstrip() for fault in loaded.faults) == snapshot
    assert all(fault.mend or fault.code.startswith(("policy.", "play.", "manifest.")) for fault in loaded.faults)
    assert "nobody" not in {resource.key.name for resource in loaded.resources}


def test_the_assets_show_every_code(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Each code that the sources can give has an asset, apart from those that need a file of its own making."""
    import re

    import agentos.manifests

    monkeypatch.chdir(ROOT)
    check = request.getfixturevalue("rego_check")
    shown = {fault.code for name in NAMES for fault in load([name], check_policies=check, check_play=check_play).faults}
    source = "".join(path.read_text() for path in Path(agentos.manifests.__file__).parent.glob("*.py"))
    areas = "yaml|file|manifest|model|class|priority|agent|play|tool|grant|reference|trigger|policy|sandbox|secret"
    known = set(re.findall(rf'"((?:{areas})\.[a-z0-9-]+)"', source))
    made_elsewhere = {"file.unreadable", "file.size", "manifest.invalid", "manifest.value", "policy.path", "manifest.kind"}
    assert known - shown <= made_elsewhere | {"manifest.type"}


def test_a_whole_tree_is_told_in_one_go(request: pytest.FixtureRequest) -> None:
    """All assets at once: every file with a flaw is named, in order, and nothing is raised."""
    loaded = load([ROOT], check_policies=request.getfixturevalue("rego_check"), check_play=check_play)
    assert list(loaded.faults) == sorted(
        loaded.faults, key=lambda fault: (fault.file, fault.line, fault.column, fault.code, fault.message)
    )
    assert len({fault.file for fault in loaded.faults}) > 70
