"""The command as an operator runs it: a process, and a home of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
AGENTOS = Path(sys.executable).with_name("agentos")

_MASKS = (
    (re.compile(r"\bs-[0-9a-z]{19}\b"), "s-SESSION"),
    (re.compile(r"sha256:[0-9a-f]{64}"), "sha256:DIGEST"),
    (re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "TIME"),
    (re.compile(r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ"), "TIME"),
    (re.compile(r"\b\d\d:\d\d:\d\d\.\d{3}\b"), "CLOCK"),
    (re.compile(r"\bpid \d+"), "pid PID"),
    (re.compile(r"nats://127\.0\.0\.1:\d+"), "nats://127.0.0.1:PORT"),
    (re.compile(r"\b\d+(\.\d+)? m?s\b"), "DURATION"),
    (re.compile(r"nats-server \d+\.\d+\.\d+"), "nats-server VERSION"),
)


def mask(text: str, *paths: Path) -> str:
    """`text` without what differs from run to run; `paths` become PATH."""
    for path in paths:
        text = text.replace(str(path), "PATH")
    for pattern, word in _MASKS:
        text = pattern.sub(word, text)
    return re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Cli:
    """Runs `agentos` on one home."""

    home: Path

    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("AGENTOS_")}
        return {**kept, "AGENTOS_HOME": str(self.home), "NO_COLOR": "1", "COLUMNS": "120"}

    def __call__(
        self, *words: str, expect: int | None = 0, stdin: str | None = None, more: Mapping[str, str] | None = None
    ) -> Done:
        """Run a command; fail the test unless it ends with `expect` (None: whatever). `more` goes into its environment."""
        done = subprocess.run(
            [AGENTOS, *words],
            cwd=ROOT,
            env={**self.environment(), **(more or {})},
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        result = Done(done.returncode, done.stdout, done.stderr)
        if expect is not None:
            assert result.code == expect, f"agentos {' '.join(words)} → {result.code}\n{result.out}\n{result.err}"
        return result

    def runtime_pid(self) -> int:
        """Pid of the runtime that runs on this home."""
        return int(json.loads((self.home / "run" / "endpoint.json").read_text())["pid"])
