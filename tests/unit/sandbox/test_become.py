"""The program that gives up root."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from agentos.sandbox.adapters.become import FAILED, MACHINE, become

UID = 0x70000042
needs = pytest.mark.skipif(MACHINE != "x86_64" or os.geteuid() != 0, reason="it is for x86_64, and for root")


def written(folder: Path) -> Path:
    found = become(UID)
    assert found is not None
    path = folder / "become"
    path.write_bytes(found)
    path.chmod(0o755)
    folder.chmod(0o755)
    return path


@needs
def test_it_becomes_the_user_for_good(tmp_path: Path) -> None:
    """User, group and groups are those of the owner, no capability is left, and there is no way back."""
    way_back = "import os; print(os.getresuid(), os.getresgid(), os.getgroups()); os.setuid(0)"
    shown = subprocess.run(
        [
            written(tmp_path),
            "/bin/sh",
            "-c",
            f'/usr/bin/python3 -c "{way_back}"; echo $X; grep -E "Cap(Prm|Eff|Amb)" /proc/self/status',
        ],
        env={"X": "kept"},
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    lines = shown.stdout.splitlines()
    assert lines[0] == f"({UID}, {UID}, {UID}) ({UID}, {UID}, {UID}) []"
    assert lines[1] == "kept"
    assert {line.split()[1] for line in lines[2:]} == {"0" * 16}
    assert "PermissionError" in shown.stderr


@needs
def test_words_are_passed_as_they_are(tmp_path: Path) -> None:
    """The command has all words after the first, empty ones too, and its exit code is the program's."""
    words = ["a b", "", "-x", "--", "é\n"]
    shown = subprocess.run([written(tmp_path), "/usr/bin/printf", "<%s>", *words], capture_output=True, text=True, check=True)
    assert shown.stdout == "".join(f"<{word}>" for word in words)
    assert subprocess.run([written(tmp_path), "/bin/sh", "-c", "exit 7"], check=False).returncode == 7


@needs
def test_whatever_fails_ends_it(tmp_path: Path) -> None:
    """Without a command, with one that is not there, or without the right to change the user, nothing is executed."""
    program = written(tmp_path)
    for words in (
        [program],
        [program, "/no/such/program"],
        ["/usr/bin/setpriv", "--reuid", "12345", "--clear-groups", program, "/bin/true"],
    ):
        assert subprocess.run(words, check=False, capture_output=True).returncode == FAILED
