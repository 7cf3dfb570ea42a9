"""Public YAML and JSON parsing suites against our readers; prints passed, refused, failed.

    python tests/conformance/yaml_json.py DIR

`DIR/yaml_suite/*.yaml` (YAML test suite): the loader must give the same data as the suite's JSON, or refuse with a place;
`fail: true` must be refused. `DIR/json_parsing/*.json` (JSONTestSuite): `abi.canonical.parse_strict` must read `y_`, refuse
`n_`, and do either with `i_`; the YAML loader, given the same bytes, must agree with it about `y_` or refuse. Nothing may raise.
Exit code 1 if anything failed.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from agentos.abi.canonical import NotCanonical, parse_strict
from agentos.manifests.compose import DEFAULT_LIMITS, compose
from agentos.manifests.gather import Unreadable, decode
from agentos.manifests.position import Text

PASSED, REFUSED, FAILED = "passed", "refused", "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one case, and why if it is not `passed`."""

    suite: str
    case: str
    result: str
    note: str = ""


def read_yaml(data: bytes) -> list[Any] | str:
    """The documents in `data`, or the first reason to refuse it."""
    try:
        text = decode(data, DEFAULT_LIMITS)
    except Unreadable as error:
        return error.message
    reading = compose(Text("case", text))
    return reading.flaws[0].message if reading.flaws else [document.value for document in reading.documents]


def yaml_cases(folder: Path) -> Iterator[Outcome]:
    """One outcome per test of the YAML test suite."""
    for path in sorted(folder.glob("*.yaml")):
        before: dict[str, Any] = {}
        for number, test in enumerate(yaml.safe_load(path.read_text(encoding="utf-8"))):
            # A later test of a file says only what differs from the one before.
            case = {**{key: before[key] for key in ("json",) if key in before and "tree" not in test}, **test}
            before = case
            if not case.get("skip"):
                yield yaml_case(f"{path.stem}/{number}", case)


def yaml_case(name: str, case: dict[str, Any]) -> Outcome:
    """The outcome of one test."""
    got = read_yaml(visible(case["yaml"]).encode())
    if case.get("fail"):
        return Outcome("yaml", name, PASSED) if isinstance(got, str) else Outcome("yaml", name, FAILED, f"read as {got!r}")
    if isinstance(got, str):
        return Outcome("yaml", name, REFUSED, got)
    if "json" not in case:
        return Outcome("yaml", name, PASSED, "read; the suite has no JSON to compare with")
    wanted = documents(case["json"])
    return Outcome("yaml", name, PASSED) if same(got, wanted) else Outcome("yaml", name, FAILED, f"{got!r}, expected {wanted!r}")


def visible(text: str) -> str:
    """The input that the suite writes with visible signs for what cannot be seen."""
    text = text.replace("␣", " ").replace("←", "\r").replace("⇔", "\ufeff").replace("↵", "")
    text = re.sub("—*»", "\t", text)
    return re.sub("∎\n?$", "", text)


def documents(text: str) -> list[Any]:
    """The JSON values that stand one after the other in `text`."""
    decoder, found, place = json.JSONDecoder(), [], 0
    while text[place:].strip():
        place += len(text[place:]) - len(text[place:].lstrip())
        value, place = decoder.raw_decode(text, place)
        found.append(value)
    return found


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal; 1 and 1.0 are, 1 and true are not."""
    return json.dumps(plain(one), sort_keys=True) == json.dumps(plain(other), sort_keys=True)


def plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def json_cases(folder: Path) -> Iterator[Outcome]:
    """Two outcomes per file of JSONTestSuite: our JSON reader's, and the YAML loader's."""
    for path in sorted(folder.glob("*.json")):
        data = path.read_bytes()
        try:
            value, refused = parse_strict(data), None
        except NotCanonical as error:
            value, refused = None, str(error)
        kind = path.name[0]
        right = {"y": refused is None, "n": refused is not None, "i": True}[kind]
        note = refused or f"read as {str(value)[:60]}"
        result = PASSED if right else REFUSED if kind == "y" else FAILED
        yield Outcome("json", path.name, result, note)
        got = read_yaml(data)
        if isinstance(got, str):
            yield Outcome("json as yaml", path.name, REFUSED if kind == "y" else PASSED, got)
        elif kind == "y" and refused is None:
            agree = same(got, [value])
            yield Outcome("json as yaml", path.name, PASSED if agree else FAILED, f"{got!r} is not {value!r}")
        else:
            # YAML reads more than JSON does: single quotes, plain text, trailing commas.
            yield Outcome("json as yaml", path.name, PASSED)


def main(arguments: list[str]) -> int:
    """Run both suites below the folder `arguments[0]`; print the counts and every case that is not `passed`."""
    folder = Path(arguments[0])
    outcomes = [*yaml_cases(folder / "yaml_suite"), *json_cases(folder / "json_parsing")]
    for outcome in outcomes:
        if outcome.result != PASSED:
            print(f"{outcome.result} {outcome.suite} {outcome.case}: {outcome.note[:150]}")
    for suite in dict.fromkeys(outcome.suite for outcome in outcomes):
        counts = Counter(outcome.result for outcome in outcomes if outcome.suite == suite)
        print(f"{suite}: " + ", ".join(f"{counts[result]} {result}" for result in (PASSED, REFUSED, FAILED)))
    return 1 if any(outcome.result == FAILED for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
