"""session.files: what a session left, read as a tool reads it, and never anything else."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agentos.abi.errors import DriverError, NotFound, UsageError
from agentos.control import workspace_verbs
from agentos.control.principal import Caller
from agentos.control.workspace_verbs import WorkspaceVerbs
from agentos.kernel.workspace import Workspaces

ANN = Caller("ann", ("operator",), "default", fleet=False)


@pytest.fixture
def verbs(tmp_path: Path) -> WorkspaceVerbs:
    async def state(tenant: str, session: str) -> object:
        if session not in {"s-1", "s-erased"}:
            raise NotFound(f"no session {session} in tenant {tenant}")
        return SimpleNamespace()

    folder = tmp_path / "default" / "s-1"
    (folder / "output").mkdir(parents=True)
    (folder / "output" / "report.md").write_text("whole\n")
    (folder / "data.bin").write_bytes(bytes(range(256)) * 10)
    (tmp_path / "secret").write_text("not of this session")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "out").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe")
    return WorkspaceVerbs(cast("Any", SimpleNamespace(state=state)), Workspaces(tmp_path))


async def test_files_are_listed_and_read_in_parts(verbs: WorkspaceVerbs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regular files alone, in order; the parts of a file are the file, byte for byte."""
    listed = await verbs.files(ANN, {"session": "s-1"})
    assert listed == {"files": [{"path": "data.bin", "bytes": 2560}, {"path": "output/report.md", "bytes": 6}], "more": False}
    monkeypatch.setattr(workspace_verbs, "MAX_PART", 1000)
    read, more = b"", True
    while more:
        part = await verbs.files(ANN, {"session": "s-1", "path": "./data.bin", "offset": len(read)})
        read, more = read + base64.b64decode(part["data"]), part["more"]
        assert (part["path"], part["bytes"]) == ("data.bin", 2560)
    assert read == bytes(range(256)) * 10
    beyond = await verbs.files(ANN, {"session": "s-1", "path": "data.bin", "offset": 9999})
    assert (beyond["data"], beyond["more"]) == ("", False)
    monkeypatch.setattr(workspace_verbs, "MAX_FILES", 1)
    assert (await verbs.files(ANN, {"session": "s-1"}))["more"] is True


@pytest.mark.parametrize(
    "path", ["link", "out/secret", "../secret", "/etc/passwd", "pipe", "output", "nothing", "a\0b", "\ud800"]
)
async def test_what_is_no_file_of_the_workspace_is_not_read(verbs: WorkspaceVerbs, path: str) -> None:
    """Links, ways out, pipes, folders and what is not there: an error, and none of their bytes."""
    with pytest.raises(DriverError):
        await verbs.files(ANN, {"session": "s-1", "path": path})


async def test_what_is_asked_for_must_be_there(verbs: WorkspaceVerbs) -> None:
    """No such session, an erased one, the workspace itself, and words that are none of the verb's."""
    with pytest.raises(NotFound, match="no session s-2"):
        await verbs.files(ANN, {"session": "s-2"})
    with pytest.raises(NotFound, match="not there any more"):
        await verbs.files(ANN, {"session": "s-erased"})
    with pytest.raises(NotFound, match="the workspace itself"):
        await verbs.files(ANN, {"session": "s-1", "path": "."})
    with pytest.raises(UsageError):
        await verbs.files(ANN, {"session": "../s-1"})
    with pytest.raises(UsageError):
        await verbs.files(ANN, {"session": "s-1", "offset": -1})
