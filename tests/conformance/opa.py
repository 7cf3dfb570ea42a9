"""OPA's own compliance cases on the engine that decides in the process; prints passed, refused, failed.

    python tests/conformance/opa.py DIR

`DIR/cases.jsonl`: a case a line: `modules`, `data`, `input` (or `input_term`, a Rego term), `query`, and `want_result` (a list of
bindings, in any order if `sort_bindings`) or `want_error_code`. `strict_error` marks cases in which an error inside of a builtin
must surface. What decides in AgentOS is always that strict, so a case that wants such an error swallowed is refused there. It is
then asked of the same OPA as a program (the one of managed servers), with the setting that the case asks for, and counted
apart; without the program it stays refused. Refused is also what does not load although the case does not want that. `test.sleep`
is a builtin of OPA's own test runner, and so of this one. Exit code 1 if anything failed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentos.abi.errors import EngineUnavailable, PolicyError
from agentos.policy.adapters import opa
from agentos.policy.adapters.opa_program import find_opa
from agentos.policy.port import Module

PASSED, LENIENT, REFUSED, FAILED = "passed", "passed with the case's own setting", "refused", "failed"
_SWALLOWED = ("eval_builtin_error", "eval_type_error")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one case, and why if it is not `passed`."""

    case: str
    result: str
    note: str = ""


def run(case: Mapping[str, Any]) -> Outcome:
    """The outcome of one case."""
    name = f"{case['note']} ({case['file']})"
    modules = [Module(f"test-{number}.rego", source) for number, source in enumerate(case.get("modules") or [])]
    try:
        engine = _build(modules, case)
    except PolicyError as error:
        wanted = case.get("want_error_code", "").startswith("rego_")
        return Outcome(name, PASSED if wanted else REFUSED, f"{error.where}: {error.message}")
    query = case["query"] + (f" with input as {case['input_term']}" if "input_term" in case else "")
    try:
        got = engine.eval_query(query, case.get("input"))
    except opa.bindings().OpaError as error:
        result, note = _of_error(case, error)
        if result is REFUSED and any(code in note for code in _SWALLOWED):
            return _leniently(name, case, modules, query, note)
        return Outcome(name, result, note)
    finally:
        engine.close()
    if "want_error_code" in case or "want_error" in case:
        return Outcome(name, FAILED, f"{got!r} instead of an error")
    return Outcome(name, PASSED) if _same(case, got) else Outcome(name, FAILED, f"{got!r}, wanted {case.get('want_result')!r}")


def _build(modules: list[Module], case: Mapping[str, Any]) -> Any:
    if not any("test.sleep(" in module.source for module in modules):
        return opa.build(modules, case.get("data") or {})
    engine = opa.bindings().OpaEngine()
    engine.register_function("test.sleep", lambda text: time.sleep(int(text.removesuffix("ms")) / 1000) or True, arity=1)
    for module in modules:
        engine.add_policy(module.path, module.source)
    engine.add_data(case.get("data") or {})
    return engine


def _leniently(name: str, case: Mapping[str, Any], modules: list[Module], query: str, note: str) -> Outcome:
    """What `opa eval` answers, which swallows errors of builtins as the case asks."""
    try:
        program = find_opa()
    except EngineUnavailable as error:
        return Outcome(name, REFUSED, f"{note}; {error.message}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for module in modules:
            (folder / module.path).write_text(module.source, encoding="utf-8")
        (folder / "data.json").write_text(json.dumps(case.get("data") or {}), encoding="utf-8")
        words = [program, "eval", "--format", "json", "--stdin-input", "--data", folder, query]
        asked = json.dumps(case.get("input"))
        done = subprocess.run(words, input=asked, capture_output=True, text=True, timeout=60, check=False)
    answer = json.loads(done.stdout)
    if answer.get("errors"):
        return Outcome(name, FAILED, str(answer["errors"]))
    got = [row.get("bindings", {}) for row in answer.get("result", [])]
    if _same(case, got):
        return Outcome(name, LENIENT, note)
    return Outcome(name, FAILED, f"{got!r}, wanted {case.get('want_result')!r}")


def _of_error(case: Mapping[str, Any], error: Any) -> tuple[str, str]:
    said = f"{error.code}: {error.message}"
    if "want_error_code" in case:
        right = case["want_error_code"] in said and case.get("want_error", "") in said
        return (PASSED if right else FAILED), f"{said}, wanted {case['want_error_code']}: {case.get('want_error', '')}"
    if "want_error" in case:
        return (PASSED if case["want_error"] in said else FAILED), f"{said}, wanted {case['want_error']}"
    if not case.get("strict_error") and any(code in said for code in _SWALLOWED):
        return REFUSED, said
    # A query that does not compile was refused with a position, too.
    return (REFUSED if "rego_" in said else FAILED), said


def _same(case: Mapping[str, Any], got: list[Any]) -> bool:
    wanted = case.get("want_result") or []
    if not case.get("sort_bindings"):
        return sorted(_written(got)) == sorted(_written(wanted)) if len(wanted) > 1 else _written(got) == _written(wanted)
    return sorted(_written(_sorted(got))) == sorted(_written(_sorted(wanted)))


def _written(rows: list[Any]) -> list[str]:
    return [json.dumps(_plain(row), sort_keys=True) for row in rows]


def _sorted(rows: list[Any]) -> list[Any]:
    """What a case with `sort_bindings` compares: arrays that were sets have no order of their own."""
    return [
        {key: sorted(value, key=lambda item: json.dumps(item, sort_keys=True)) if isinstance(value, list) else value}
        for row in rows
        for key, value in row.items()
    ]


def _plain(value: Any) -> Any:
    """1 and 1.0 are one number in Rego."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def cases(folder: Path) -> Iterator[Mapping[str, Any]]:
    """The cases in `folder`."""
    with (folder / "cases.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def main(arguments: list[str]) -> int:
    """Run all cases in the folder `arguments[0]`; print every one that is not `passed`, then the counts."""
    outcomes = [run(case) for case in cases(Path(arguments[0]))]
    for outcome in outcomes:
        if outcome.result != PASSED:
            print(f"{outcome.result} {outcome.case}: {outcome.note[:200]}")
    counts = Counter(outcome.result for outcome in outcomes)
    told = ", ".join(f"{counts[result]} {result}" for result in (PASSED, LENIENT, REFUSED, FAILED))
    strictly, whole = counts[PASSED] / len(outcomes), (counts[PASSED] + counts[LENIENT]) / len(outcomes)
    print(f"opa, {len(outcomes)} cases: {told} ({strictly:.2%} as AgentOS decides, {whole:.2%} as OPA does)")
    return 1 if counts[FAILED] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
