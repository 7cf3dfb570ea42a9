"""The words that a container is started with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agentos.abi.errors import DriverError
from agentos.sandbox.adapters.container import Given, container_words, variables_file
from agentos.sandbox.inside import Tree
from agentos.sandbox.port import Launch, SandboxUnavailable
from agentos.sandbox.profile import Access, Isolation, Limits, standard

PROFILE = replace(
    standard("boxed"),
    isolation=Isolation.CONTAINER,
    image="debian:12-slim",
    limits=Limits(memory_mib=300, processes=50, cpu_s=9, file_mib=2, tmp_mib=20, open_files=99),
)
LAUNCH = Launch(("ls", "--env", "X"), PROFILE, Path("/srv/w"), "t/s", env={"TOKEN": "hunter2"}, folder="a")
GIVEN = Given(engine="/usr/bin/docker", name="agentos-1", variables="/proc/self/fd/9", uid=1879048200)


def test_everything_is_off_that_can_be() -> None:
    """A container has no network, no capabilities, a root that cannot be written, a user of its own and bounds on all."""
    words = container_words(LAUNCH, GIVEN)
    text = " ".join(words)
    for expected in (
        "--rm",
        "--network none",
        "--read-only",
        "--cap-drop ALL",
        "--security-opt no-new-privileges",
        "--pids-limit 50",
        "--memory 300m --memory-swap 300m",
        "--user 1879048200:1879048200",
        "--tmpfs /tmp:rw,nosuid,nodev,size=20m,mode=1777",
        "--ulimit nofile=99:99",
        f"--ulimit fsize={2 * 1024 * 1024}:{2 * 1024 * 1024}",
        "--ulimit cpu=9:9",
        "--mount type=bind,source=/srv/w,target=/workspace",
        "--workdir /workspace/a",
        "--env-file /proc/self/fd/9",
    ):
        assert expected in text
    assert words[words.index("--") :] == ("--", "debian:12-slim", "ls", "--env", "X")
    assert not {"--privileged", "--volume", "-v", "--env"} & set(words[: words.index("--")])
    assert "hunter2" not in text


def test_what_the_profile_adds() -> None:
    """A runtime, read-only and further mounts, and the relay stand where they belong."""
    profile = replace(PROFILE, runtime="runsc", workspace=Access.READ)
    given = replace(GIVEN, trees=(Tree("/opt/m", "/models"),), relay="/run/agentos/relay.py", shared=True)
    text = " ".join(container_words(replace(LAUNCH, profile=profile), given))
    assert "--runtime runsc" in text
    assert "--userns keep-id" in text
    assert "source=/srv/w,target=/workspace,readonly" in text
    assert "source=/opt/m,target=/models,readonly" in text
    assert (
        "-- debian:12-slim python3 -I -S /run/agentos/relay.py --socket /run/agentos/egress.sock --port 3128 -- ls --env X"
        in text
    )


def test_paths_that_would_be_read_otherwise() -> None:
    """A path that the engine would take apart is refused."""
    with pytest.raises(SandboxUnavailable):
        container_words(replace(LAUNCH, workspace=Path("/srv/w,readonly")), GIVEN)


def test_variables_have_one_line() -> None:
    """Variables are written one a line, and what has more lines is refused without its value being told."""
    assert variables_file({"A": "1", "B": "x=y #z"}) == b"A=1\nB=x=y #z\n"
    with pytest.raises(DriverError) as refused:
        variables_file({"TOKEN": "hunter2\nA=1"})
    assert "hunter2" not in str(refused.value)
