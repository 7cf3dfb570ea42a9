"""Traps: where homes are, what stands there, and who is told of what is opened."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agentos.sandbox.adapters.traps import HOME, SHADOW, Place, Traps, places
from agentos.sandbox.inside import RUN, Tree

USR = Tree("/usr", "/usr")


def at(found: tuple[Place, ...]) -> dict[str, Place]:
    return {place.at: place for place in found}


def test_everybodys_home_is_one() -> None:
    """People's, root's, that of the runtime's user and the runtime's own, and the file of passwords."""
    found = at(places(Path("/srv/agentos"), (USR,), "/var/lib/keeper"))
    assert set(found) == {"/home", "/root", "/srv/agentos", "/var/lib/keeper", SHADOW}
    assert "agent/.ssh/id_rsa" in found["/home"].files
    assert "identities/operator.json" in found["/srv/agentos"].files
    assert found[SHADOW].files == ()


def test_a_home_within_a_home_is_no_place_of_its_own() -> None:
    """One mount holds all that is below it."""
    found = at(places(Path("/home/ann/.agentos"), (USR,), "/home/ann"))
    assert set(found) == {"/home", "/root", SHADOW}
    assert {"ann/.netrc", "ann/.agentos/identities/operator.json", "agent/.netrc"} <= set(found["/home"].files)


@pytest.mark.parametrize("home", ["/", "/usr/lib/agentos", "/tmp", f"{RUN}/home", "/workspace", "/var/tmp/x", "/proc/x"])
def test_what_a_sandbox_needs_itself_is_no_trap(home: str) -> None:
    """A home in the midst of programs or of the sandbox's own folders is left out; the others stay."""
    assert set(at(places(Path(home), (USR,), home))) == {"/home", "/root", SHADOW}


def test_programs_below_a_home_have_their_place(tmp_path: Path) -> None:
    """A Python in somebody's home can be mounted into the trap that stands there."""
    (tmp_path / "python").mkdir()
    found = at(places(None, (USR, Tree(str(tmp_path / "python"), "/home/ann/venv")), "/home/ann"))
    assert found["/home"].points == (("ann/venv", True),)
    traps = Traps(found.values())
    trap = traps._make()
    home = next(mount for mount in trap.mounts if mount.at == "/home")
    assert Path(home.source, "ann", "venv").is_dir()


async def opened(traps: Traps, path: Path, told: list[str]) -> None:
    path.read_text()
    async with asyncio.timeout(10):
        while not told:
            await asyncio.sleep(0)


async def test_who_opens_something_is_told_of_at_once() -> None:
    """By the path that the process sees, while it is still there."""
    traps, told = Traps(places(None, (USR,), "/root")), list[str]()
    trap = traps.lay(told.append)
    home = next(mount for mount in trap.mounts if mount.at == "/home")
    await opened(traps, Path(home.source, "agent", ".ssh", "id_rsa"), told)
    assert told == [f"{HOME}/.ssh/id_rsa"]
    traps.take_up(trap)


async def test_what_is_not_opened_is_not_told() -> None:
    """To ask whether something is there opens nothing, and a name that is not there cannot be opened."""
    traps, told = Traps(places(None, (USR,), "/root")), list[str]()
    trap = traps.lay(told.append)
    home = Path(next(mount for mount in trap.mounts if mount.at == "/home").source)
    assert (home / "agent").is_dir()
    with pytest.raises(FileNotFoundError):
        (home / "agent" / "none").read_text()
    traps.take_up(trap)
    assert told == []


async def test_each_process_has_a_trap_of_its_own() -> None:
    """Two at the same time are told apart; the next one finds a trap again, in which what was before is not told."""
    traps, one, two, three = Traps(places(None, (USR,), "/root")), list[str](), list[str](), list[str]()
    first, second = traps.lay(one.append), traps.lay(two.append)
    shadow = Path(next(mount for mount in first.mounts if mount.at == SHADOW).source)
    shadow.read_text()
    traps.take_up(first)
    assert (one, two) == ([SHADOW], [])
    again = traps.lay(three.append)
    assert again is first
    traps.take_up(again)
    traps.take_up(second)
    assert three == []


async def test_a_listing_is_an_opening() -> None:
    """Of a home, and of what is in it."""
    traps, told = Traps(places(None, (USR,), "/root")), list[str]()
    trap = traps.lay(told.append)
    list(Path(next(mount for mount in trap.mounts if mount.at == "/root").source).iterdir())
    traps.take_up(trap)
    assert told == ["/root"]
