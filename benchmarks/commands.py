"""The commands as an operator waits for them: whole processes, interpreter start included."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

AGENTOS = Path(sys.executable).with_name("agentos")
COUNT = 1000


def manifests(folder: Path) -> None:
    """1,000 manifests in ten files: one model, one tool, 499 agents, 499 grants."""
    folder.mkdir(parents=True)
    documents = [
        "kind: Model\nmetadata: {name: m}\nspec: {provider: anthropic, anthropic: {model: claude}}",
        "kind: Tool\nmetadata: {name: read}\nspec: {description: read, effect: read, driver: {builtin: {primitive: read}}}",
    ]
    for number in range((COUNT - 2) // 2):
        documents.append(
            f"kind: Agent\nmetadata: {{name: a{number}}}\nspec:\n  instructions: work\n  model: m\n  tools: [read]\n"
            "  governance: {owner: bench, purpose: bench, risk: minimal}"
        )
        documents.append(
            f"kind: ToolGrant\nmetadata: {{name: g{number}}}\n"
            f"spec: {{agents: [a{number}], tools: [read], args: {{path: {{glob: 'in/**'}}}}}}"
        )
    size = COUNT // 10
    for part in range(10):
        text = "\n---\n".join(f"apiVersion: agentos/v1\n{body}" for body in documents[part * size : (part + 1) * size])
        (folder / f"part-{part}.yaml").write_text(text + "\n")


def timed(*words: str, home: Path, expect: int, runs: int = 5) -> float:
    """Median seconds of a command."""
    found = []
    for _ in range(runs):
        started = time.perf_counter()
        done = subprocess.run(
            [AGENTOS, *words], env={**os.environ, "AGENTOS_HOME": str(home)}, capture_output=True, text=True, check=False
        )
        found.append(time.perf_counter() - started)
        if done.returncode != expect:
            raise RuntimeError(f"agentos {' '.join(words)} ended with {done.returncode}: {done.stderr}")
    return statistics.median(found)


def run(folder: Path) -> dict[str, float]:
    """Seconds by what was done."""
    home, tree = folder / "home", folder / "manifests"
    manifests(tree)
    found = {
        "`python -c pass` (floor)": _floor(),
        "`agentos --version`": timed("--version", home=home, expect=0),
        f"`agentos validate`, {COUNT} manifests": timed("validate", str(tree), home=home, expect=0),
    }
    ups = []
    for _ in range(5):
        ups.append(timed("up", "--detach", home=home, expect=0, runs=1))
        timed("down", home=home, expect=0, runs=1)
    found["`agentos up --detach` to ready"] = statistics.median(ups)
    timed("up", "--detach", home=home, expect=0, runs=1)
    try:
        found[f"`agentos apply`, {COUNT} new"] = timed("apply", str(tree), "--yes", "--allow-widen", home=home, expect=0, runs=1)
        found[f"`agentos plan`, {COUNT} unchanged"] = timed("plan", str(tree), home=home, expect=0)
    finally:
        timed("down", home=home, expect=0, runs=1)
    return found


def _floor() -> float:
    found = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        found.append(time.perf_counter() - started)
    return statistics.median(found)
