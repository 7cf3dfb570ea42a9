"""The words of `harness check`: what of the host a command needs, and under which names it stands in the sandbox."""

from __future__ import annotations

import sys
from pathlib import Path

from agentos.boot.harness_place import words_and_mounts
from agentos.sandbox.profile import Mount


def test_a_file_among_the_words_is_mounted(tmp_path: Path) -> None:
    """By its whole path; options and what is no file stay as they are."""
    program = tmp_path.resolve() / "loop.sh"
    program.write_text("")
    found = words_and_mounts(("sh", "-e", "loop.sh", "nothing"), tmp_path)
    assert found == (("sh", "-e", str(program), "nothing"), (Mount(str(program), str(program)),))


def test_a_program_of_a_mounted_environment_keeps_its_name(tmp_path: Path) -> None:
    """It is a link to a Python that does not know the environment; only the folder beside the link tells of it."""
    python = tmp_path.resolve() / "framework" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(Path(sys.base_prefix) / "bin" / "python3")
    (words, mounts), (followed, _) = (
        words_and_mounts((str(python), "-I"), tmp_path, [tmp_path.resolve() / "framework"]),
        words_and_mounts((str(python), "-I"), tmp_path),
    )
    assert (words, mounts) == ((str(python), "-I"), ())
    assert followed != words
