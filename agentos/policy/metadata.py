"""The `# METADATA` of packages and of results: title and description for people, and the schema that OPA checks paths against."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import yaml

from agentos.abi.canonical import Json
from agentos.policy.finding import Finding, Read
from agentos.policy.known import INPUTS
from agentos.policy.source import Comment, Place

_MEND: Final = "write above it: # METADATA, # title: …, # description: …"


def check_metadata(item: Read) -> Iterator[Finding]:
    """The package tells its title, its description and the schema of its input; each rule `results` its title and description."""
    top = item.source.first(r"^[ \t]*package\b")
    block = item.source.block_above(top.line)
    yield from _told(item, top, f"package {'.'.join(item.package)}", block)
    yield from _schema(item, top, block, wanted=True)
    for rule, span in item.rules():
        above = item.source.block_above(span.start.line)
        if rule["head"]["ref"][0]["value"] == "results":
            yield from _told(item, span.start, "rule results", above)
        yield from _schema(item, span.start, above, wanted=False)


def _told(item: Read, place: Place, what: str, block: Sequence[Comment]) -> Iterator[Finding]:
    try:
        fields = _fields(block)
    except ValueError as error:
        yield item.finding(place, "metadata", f"the METADATA of {what} is not YAML: {error}", "write one field to a line")
        return
    missing = [name for name in ("title", "description") if not _is_told((fields or {}).get(name))]
    if missing:
        lacking = "METADATA" if fields is None else " and no ".join(missing)
        yield item.finding(place, "metadata", f"{what} has no {lacking}", _MEND)


def _is_told(value: Json) -> bool:
    # YAML reads `title: no` as false: it is told all the same.
    return bool(value.strip()) if isinstance(value, str) else value is not None


def _schema(item: Read, place: Place, block: Sequence[Comment], *, wanted: bool) -> Iterator[Finding]:
    """Without the right schema, `opa check -s schemas/v1` would look at no path, or at those of something else."""
    try:
        fields = _fields(block) or {}
    except ValueError:
        return
    right = f'schema["{INPUTS[item.target]}"]'
    entries = fields.get("schemas")
    listed = entries if isinstance(entries, list) else []
    named = [entry["input"] for entry in listed if isinstance(entry, dict) and "input" in entry]
    at = next((Place(one.line, one.column) for one in block if "schemas:" in one.text), place)
    mend = f"write into the METADATA: # schemas:, #   - input: {right}"
    if wanted and not named and fields:
        yield item.finding(at, "schema", f"the METADATA of package {'.'.join(item.package)} names no schema of its input", mend)
    for one in named:
        if one != right:
            said = one if isinstance(one, str) else "a schema of its own"
            yield item.finding(at, "schema", f"the input is declared to be {said}: a {item.target} policy gets another one", mend)


def _fields(block: Sequence[Comment]) -> Mapping[str, Json] | None:
    """The fields of the last METADATA in a block, None without one. Raises ValueError for what is no YAML mapping."""
    texts = [comment.text for comment in block]
    starts = [number for number, text in enumerate(texts) if text.strip() == "METADATA"]
    if not starts:
        return None
    try:
        loaded = yaml.safe_load("\n".join(texts[starts[-1] + 1 :]))
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(_shortly(error)) from error
    if loaded is not None and not isinstance(loaded, dict):
        raise ValueError("there are no fields in it")
    return loaded or {}


def _shortly(error: Exception) -> str:
    problem = getattr(error, "problem", None) or "it is nested too deeply or holds a broken value"
    return re.sub(r"\s+", " ", str(problem))
