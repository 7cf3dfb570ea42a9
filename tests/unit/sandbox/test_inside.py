"""What a process finds inside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agentos.abi.errors import DriverError
from agentos.sandbox.inside import (
    Tree,
    apart,
    environment,
    folder_of,
    found_at,
    program,
    relayed,
    seen_as,
    with_late,
    workspace_at,
)
from agentos.sandbox.port import Launch
from agentos.sandbox.profile import Access, standard

TREES = (
    Tree("/usr", "/usr"),
    Tree("/home/a/models", "/models"),
    Tree("/home/a/models/big", "/big"),
    Tree("/srv/w", "/workspace"),
)
LAUNCH = Launch(("true",), replace(standard(), env={"A": "profile", "B": "profile"}), Path("/srv/w"), "t/s", env={"B": "call"})


def test_variables_of_the_call_win() -> None:
    """The process has what the profile and the call say, the call last, and a few of the sandbox."""
    env = environment(LAUNCH, "/usr/bin", proxy=None, authority=None, home="/workspace")
    assert (env["A"], env["B"], env["HOME"], env["PATH"]) == ("profile", "call", "/workspace", "/usr/bin")
    assert not [name for name in env if name.upper().endswith("_PROXY")]


def test_the_way_out_cannot_be_renamed() -> None:
    """Where there is a proxy, no declaration leads around it."""
    launch = replace(LAUNCH, env={"HTTPS_PROXY": "http://evil", "NO_PROXY": "*", "SSL_CERT_FILE": "/workspace/mine"})
    env = environment(
        launch, "/usr/bin", proxy="http://127.0.0.1:3128", authority="/run/agentos/authority.pem", home="/workspace"
    )
    assert {env[name] for name in env if name.upper() in {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"}} == {"http://127.0.0.1:3128"}
    assert env["NO_PROXY"] == env["no_proxy"] == ""
    assert env["SSL_CERT_FILE"] == env["NODE_EXTRA_CA_CERTS"] == "/run/agentos/authority.pem"


def test_variables_of_the_loader_are_set_last() -> None:
    """What the dynamic loader obeys is kept from all but the command."""
    env, late = apart({"LD_PRELOAD": "/x.so", "LD_AUDIT": "y", "GLIBC_TUNABLES": "z", "GCONV_PATH": ".", "PATH": "/bin"})
    assert env == {"PATH": "/bin"}
    assert sorted(late) == ["GCONV_PATH", "GLIBC_TUNABLES", "LD_AUDIT", "LD_PRELOAD"]
    assert with_late(("cmd", "x"), {"LD_PRELOAD": "/x.so"}) == ("/usr/bin/env", "LD_PRELOAD=/x.so", "cmd", "x")
    assert with_late(("cmd",), {}) == ("cmd",)


def test_paths_are_told_apart_by_the_longest_tree() -> None:
    """A path stands where the innermost mount puts it, in both directions."""
    assert seen_as("/home/a/models/x", TREES) == "/models/x"
    assert seen_as("/home/a/models/big/x", TREES) == "/big/x"
    assert seen_as("/home/a/modelsx", TREES) is None
    assert seen_as("/usr", TREES) == "/usr"
    assert found_at("/models/x", TREES) == "/home/a/models/x"
    assert found_at("/etc/x", TREES) is None
    assert seen_as("/anything", (Tree("/", "/"),)) == "/anything"


def test_a_program_must_be_there() -> None:
    """A command that is not in the sandbox is refused before anything is started."""
    assert program("env", "/nowhere:/usr/bin", TREES) == "/usr/bin/env"
    assert program("/usr/bin/env", "", TREES) == "/usr/bin/env"
    for word in ("no-such-program", "/etc/passwd", "/bin/sh", "./run", "../env", "/usr/bin/no-such-program"):
        with pytest.raises(DriverError):
            program(word, "/usr/bin:.", TREES)


@pytest.mark.parametrize("folder", ["/etc", "..", "a/../..", "a/..", "x\0y"])
def test_a_folder_outside_is_refused(folder: str) -> None:
    """The folder to start in is one of the workspace."""
    with pytest.raises(DriverError):
        folder_of(replace(LAUNCH, folder=folder))


def test_where_it_starts() -> None:
    """It starts in the workspace or below; where there is none, in /tmp."""
    none = replace(standard(), workspace=Access.NONE)
    assert folder_of(LAUNCH) == "/workspace"
    assert folder_of(replace(LAUNCH, folder="a/b")) == "/workspace/a/b"
    assert workspace_at(none) == folder_of(replace(LAUNCH, profile=none)) == "/tmp"


def test_words_of_the_relay() -> None:
    """The command stands behind the relay's own words, as it is."""
    words = relayed("/usr/bin/python3", "/run/agentos/relay.py", "/run/agentos/egress.sock", 3128, ("cmd", "--port", "1"))
    assert words == (
        *("/usr/bin/python3", "-I", "-S", "/run/agentos/relay.py", "--socket", "/run/agentos/egress.sock"),
        *("--port", "3128", "--", "cmd", "--port", "1"),
    )
