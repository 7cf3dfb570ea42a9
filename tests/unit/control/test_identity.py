"""Identity files: readable by their owner alone, strict, and silent about the secret."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentos.abi.errors import IdentityError, Unavailable
from agentos.control.client import find_identity, find_server
from agentos.control.identity import Identity, load_identity

SEED = "SUAMK2FG4MI6UE3ACF3FK3OIQBCEIEZV7NSWFFEW63UXMRLFM2XLAXK4GY"


def write(path: Path, body: Any, mode: int = 0o600) -> Path:
    path.write_text(body if isinstance(body, str) else json.dumps(body))
    path.chmod(mode)
    return path


def test_a_saved_identity_is_private_and_comes_back(tmp_path: Path) -> None:
    """Mode 0600 in a folder 0700, whatever the umask; what is loaded is what was saved."""
    identity, path = Identity("alice", "*", SEED), tmp_path / "identities" / "alice.json"
    before = os.umask(0)
    try:
        identity.save(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert load_identity(path) == identity


def test_an_identity_is_never_overwritten(tmp_path: Path) -> None:
    """A secret that exists stays, also behind a link, and the error does not show the new one."""
    path = tmp_path / "alice.json"
    Identity("alice", "*", SEED).save(path)
    kept = path.read_bytes()
    (tmp_path / "link.json").symlink_to(tmp_path / "elsewhere.json")
    for place in (path, tmp_path / "link.json"):
        with pytest.raises(IdentityError, match="exists already") as caught:
            Identity("alice", "*", SEED[::-1]).save(place)
        assert SEED[::-1] not in said(caught.value)
    assert path.read_bytes() == kept
    assert not (tmp_path / "elsewhere.json").exists()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o601, 0o666])
def test_a_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    """Any bit for group or others, as ssh does, with the command that mends it."""
    path = write(tmp_path / "a.json", {"principal": "alice", "tenant": "*", "seed": SEED}, mode)
    with pytest.raises(IdentityError, match=f"mode {mode:o}") as caught:
        load_identity(path)
    assert caught.value.mend == f"chmod 600 {path}"


JUNK = [
    "",
    "{",
    "[]",
    "null",
    '"x"',
    "5",
    {"principal": "alice", "tenant": "*"},
    {"principal": "alice", "seed": SEED},
    {"principal": "Alice", "tenant": "*", "seed": SEED},
    {"principal": "a.>", "tenant": "*", "seed": SEED},
    {"principal": 5, "tenant": "*", "seed": SEED},
    {"principal": "alice", "tenant": ["*"], "seed": SEED},
    {"principal": "alice", "tenant": "*", "seed": [SEED]},
    SEED,
]


@pytest.mark.parametrize("body", JUNK, ids=range(len(JUNK)))
def test_junk_is_an_identity_error_that_shows_no_secret(tmp_path: Path, body: Any) -> None:
    """Whatever is in the file, the error is one sentence without the seed."""
    with pytest.raises(IdentityError, match="is not an identity file") as caught:
        load_identity(write(tmp_path / "a.json", body))
    assert SEED not in said(caught.value)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=40))
def test_bytes_of_any_kind_are_an_identity_error(tmp_path: Path, data: bytes) -> None:
    """Also bytes that are no text."""
    path = tmp_path / "a.json"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(IdentityError):
        load_identity(path)


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    """A file that is missing, and a folder in its place."""
    with pytest.raises(IdentityError, match="no identity file") as caught:
        load_identity(tmp_path / "none.json")
    assert "agentos up" in str(caught.value.mend)
    folder = tmp_path / "folder.json"
    folder.mkdir(mode=0o700)
    with pytest.raises(IdentityError, match="Is a directory"):
        load_identity(folder)


def test_the_secret_is_in_no_repr() -> None:
    """Logging an identity does not tell its seed."""
    assert SEED not in repr(Identity("alice", "*", SEED))
    assert "alice" in repr(Identity("alice", "*", SEED))


def test_who_acts_is_found_in_the_home(tmp_path: Path) -> None:
    """A file that is named comes first, then a principal of the home, then its operator."""
    for name in ("operator", "bob"):
        Identity(name, "*", SEED).save(tmp_path / "identities" / f"{name}.json")
    Identity("carol", "*", SEED).save(tmp_path / "carol.json")
    assert find_identity(tmp_path, None, None).principal == "operator"
    assert find_identity(tmp_path, None, "bob").principal == "bob"
    assert find_identity(tmp_path, tmp_path / "carol.json", "bob").principal == "carol"


def test_a_runtime_is_found_by_its_announcement(tmp_path: Path) -> None:
    """The URL that is given, else the home's; without either, how to start one."""
    assert find_server(tmp_path, "nats://there:1") == "nats://there:1"
    with pytest.raises(Unavailable, match="no runtime runs on") as caught:
        find_server(tmp_path, None)
    assert "agentos up" in str(caught.value.mend)
    endpoint = tmp_path / "run" / "endpoint.json"
    endpoint.parent.mkdir()
    endpoint.write_text('{"url": "nats://127.0.0.1:9", "pid": 1}')
    assert find_server(tmp_path, None) == "nats://127.0.0.1:9"
    for junk in ("", "{}", "{", '{"pid": 1}'):
        endpoint.write_text(junk)
        with pytest.raises(Unavailable, match="cannot be read"):
            find_server(tmp_path, None)


def said(error: IdentityError) -> str:
    """All that an error says, its causes included."""
    texts, cause = [], error
    while cause is not None:
        texts.append(f"{cause} {cause.args} {getattr(cause, 'mend', '')} {getattr(cause, 'where', '')}")
        cause = cause.__cause__  # type: ignore[assignment]
    return " ".join(texts)
