"""The pinned `opa` program, asked beside our own checks: `opa check --strict` and `opa test`, as a compliance team runs them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agentos.abi.assets import asset
from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, EngineUnavailable, PolicyError
from agentos.policy.adapters.opa_program import VERSION, find_opa
from agentos.policy.coverage import coverage
from agentos.policy.finding import Finding
from agentos.policy.port import Module
from agentos.policy.testing import TestResult, TestRun

SECONDS: Final = 300
"""How long one run of the program may take."""

_EACH: Final = "60s"
"""How long one test may take: OPA's own 5 s are not enough on a busy machine."""

_MEND: Final = "correct the Rego"

_COMPLAINT: Final = re.compile(r"^(?:1 error occurred: )?(?P<path>.*?):(?P<line>\d+): rego_\w+: (?P<message>.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Strict:
    """What a real `opa check --strict` said, and a sentence on whether it ran."""

    complaints: tuple[Finding, ...]
    ran: str


def opa_check(modules: Sequence[Module]) -> Strict:
    """Run `opa check --strict` with our schemas and capabilities over `modules` (files that are there) and the axioms."""
    try:
        program = find_opa()
    except EngineUnavailable as error:
        return Strict((), f"checked by our lint alone, without `opa check`: {error.message} ({error.mend})")
    named = {Path(module.path).resolve() for module in modules}
    axioms = sorted(path for path in (asset("policies") / "agentos").rglob("*.rego") if not path.name.endswith("_test.rego"))
    # The axioms go along, once: `opa` refuses a file that it is given twice.
    files = [*(str(path) for path in axioms if path.resolve() not in named), *(module.path for module in modules)]
    capabilities = asset("policies") / "capabilities.json"
    words = ["--capabilities", str(capabilities), "-s", str(asset("schemas") / "v1"), *_guarded(files)]
    done = _run(program, ["check", "--strict", "--format", "json", *words])
    complaints = _complaints(done.stderr or done.stdout, modules) if done.returncode else ()
    return Strict(tuple(complaints), f"checked by our lint and by `opa check --strict` of OPA {VERSION}")


def opa_test(modules: Sequence[Module], *, covered: bool) -> TestRun:
    """Run the tests of `modules` (files that are there) with `opa test`. Raises EngineUnavailable without the pinned program."""
    program = find_opa()
    files = _guarded([module.path for module in modules])
    done = _run(program, ["test", "-v", "--timeout", _EACH, "--format", "json", *files])
    sources = {module.path: module.source for module in modules}
    results = tuple(sorted((_result(one, sources) for one in _read(done)), key=lambda one: (one.path, one.line, one.name)))
    if not covered:
        return TestRun(results)
    report = _run(program, ["test", "--coverage", "--timeout", _EACH, "--format", "json", *files])
    if not report.stdout.startswith("{"):
        # OPA prints the tests that failed in its place.
        return TestRun(results)
    return TestRun(results, coverage(modules, [json.loads(report.stdout)]))


def _guarded(files: Sequence[str]) -> list[str]:
    """Names of files as `opa` takes them: `a:b` would mean the file `b` under the name `a`, and `-x` an option."""
    for name in files:
        if ":" in name:
            raise AgentOSError("opa cannot read a file with a colon in its path", where=name, mend="rename it")
    return [f"./{name}" if name.startswith("-") else name for name in files]


def _run(program: Path, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run([program, *words], capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise EngineUnavailable(f"opa did not end within {SECONDS} s", where=str(program)) from error
    except OSError as error:
        raise EngineUnavailable(f"opa does not run: {error}", where=str(program)) from error


def _complaints(text: str, modules: Sequence[Module]) -> list[Finding]:
    """What `opa check --format json` tells; its columns count bytes."""
    try:
        errors = json.loads(text)["errors"]
    except (ValueError, KeyError, TypeError):
        return [Finding("", 0, 1, "opa.error", text.strip() or "opa check failed and does not say why", _MEND)]
    sources = {module.path: module.source.split("\n") for module in modules}
    found = []
    for error in errors:
        place = error.get("location") or {"file": "", "row": 0, "col": 1}
        lines = sources.get(place["file"], [])
        before = lines[place["row"] - 1].encode()[: place["col"] - 1] if 0 < place["row"] <= len(lines) else b""
        column = len(before.decode(errors="ignore")) + 1
        found.append(Finding(place["file"], place["row"], column, f"opa.{error['code']}", error["message"], _MEND))
    return found


def _read(done: subprocess.CompletedProcess[str]) -> Sequence[Mapping[str, Json]]:
    try:
        told: Json = json.loads(done.stdout or "null")
    except ValueError as error:
        raise EngineUnavailable("opa test answered with something that is not JSON") from error
    if not isinstance(told, list):
        if not done.stderr.strip():
            return ()
        first = _COMPLAINT.search(done.stderr)
        if first is None:
            raise PolicyError(f"opa does not load the policies: {done.stderr.strip()}")
        raise PolicyError(first["message"], where=f"{first['path']}:{first['line']}", mend=_MEND)
    return told


def _result(one: Mapping[str, Json], sources: Mapping[str, str]) -> TestResult:
    place = one["location"]
    path = place["file"] if place["file"] in sources else place["file"].removeprefix("./")
    error, skipped = one.get("error"), bool(one.get("skip"))
    message = ""
    if error and not skipped:
        message = str(error.get("message", error))
    elif one.get("fail") and not skipped:
        message = f"the rule is not true{_first_failure(one, sources.get(path, ''))}"
    return TestResult(
        path=path,
        package=str(one["package"]).removeprefix("data."),
        name=one["name"],
        passed=not message and not skipped,
        message=message,
        line=place["row"],
        seconds=one["duration"] / 1e9,
        skipped=skipped,
    )


def _first_failure(one: Mapping[str, Json], source: str) -> str:
    """The condition of a test that got furthest and did not hold, as our own runner tells it."""
    place = one["location"]
    told = [event["Location"] for event in one.get("trace", ()) if event["Op"] == "Fail"]
    rows = [at["row"] for at in told if at["file"] == place["file"] and at["row"] >= place["row"]]
    if not rows or max(rows) > source.count("\n") + 1:
        return ""
    condition = source.split("\n")[max(rows) - 1].strip()
    return f": line {max(rows)} does not hold: {condition}"
