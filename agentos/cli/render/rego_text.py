"""How findings in Rego and results of its tests are printed: by file, with the line they are about and a caret below it.

policies/egress.rego
  12:15 error[policy.input] input.syscall.tol does not exist
     12 |     input.syscall.tol == "send"
        |                   ^^^
     mend: did you mean tool?
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final

from agentos.cli.render.text import count, plain, table, width
from agentos.policy.coverage import Coverage, FileCoverage
from agentos.policy.finding import Finding
from agentos.policy.testing import TestResult

Paint = Callable[[str, str], str]
"""A text and a colour → the text as it is printed."""

LONGEST: Final = 160
"""Characters of a source line that are shown."""

_WORD: Final = re.compile(r"[\w.-]+|\"[^\"]*\"|\S")


def findings_text(found: Sequence[Finding], sources: Mapping[str, str], paint: Paint) -> Iterator[str]:
    """Findings in order of file and line. `sources`: the text of each file, by path; one that is not there shows no line."""
    first = True
    for path, group in groupby(sorted(found), key=lambda one: one.path):
        if not first:
            yield ""
        first = False
        yield paint(plain(path or "(all files)"), "bold")
        for one in group:
            place = f"{one.line}:{one.column} " if one.line else ""
            yield f"  {place}{paint(f'error[{one.code}]', 'red')} {plain(one.message)}"
            yield from _excerpt(one, sources.get(path, ""), paint)
            yield f"     {paint('mend:', 'cyan')} {plain(one.mend)}"


def _excerpt(one: Finding, source: str, paint: Paint) -> Iterator[str]:
    lines = source.split("\n")
    if not 0 < one.line <= len(lines) or not lines[one.line - 1].strip():
        return
    line = lines[one.line - 1].rstrip("\r")
    word = _WORD.match(line, one.column - 1)
    # A place that does not tell a column is the whole line.
    start = one.column - 1 if one.column > 1 or word else len(line) - len(line.lstrip())
    marked = word.group() if word else line[start : start + 1]
    before = _shown(line[:start])
    number = str(one.line).rjust(5)
    yield f"  {number} | {_shown(line)[:LONGEST]}"
    if width(before) < LONGEST:
        carets = "^" * max(1, min(width(_shown(marked)), LONGEST - width(before)))
        yield f"        | {' ' * width(before)}{paint(carets, 'red')}"


def _shown(text: str) -> str:
    """A piece of source on one line: a tab is four columns, what is not printable an escape."""
    return plain(text.replace("\t", "    "))


def failures_text(results: Sequence[TestResult], paint: Paint) -> Iterator[str]:
    """The tests that did not pass, each with its file and line."""
    for one in results:
        where = f"{plain(one.path)}:{one.line}: {one.package}.{one.name}"
        if one.failed:
            yield f"{paint('FAIL', 'red')}  {where}: {plain(one.message)}"
        elif one.skipped:
            yield f"{paint('SKIP', 'yellow')}  {where}"


def coverage_text(told: Coverage, paint: Paint) -> Iterator[str]:
    """A line per module, then every rule that never succeeded in a test and every stretch of lines that none has reached."""
    rows = [
        (plain(one.path), f"{len(one.rules) - len(one.untested)}/{len(one.rules)}", f"{one.percent:.1f} %", _missed(one))
        for one in told.files
    ]
    yield from table(("MODULE", "RULES", "LINES", "NOT COVERED"), rows)
    for one in told.files:
        for rule in one.untested:
            what = "never succeeds in a test" if rule.entered else "is never entered by a test"
            yield f"{paint('rule', 'yellow')}  {plain(one.path)}:{rule.line}: {rule.name} {what}"
        for first, last in one.missed:
            lines = f"{first}" if first == last else f"{first}-{last}"
            yield f"{paint('lines', 'yellow')} {plain(one.path)}:{lines}"


def coverage_line(told: Coverage) -> str:
    """The total in one line."""
    return f"coverage: {told.percent:.1f} % of lines, {told.succeeded} of {count(told.rules, 'rule')}"


def _missed(one: FileCoverage) -> str:
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in one.missed) or "-"
