"""Results of Rego tests as JUnit XML, the form that build servers read: a suite per package, a case per test.

There is no one standard; what is written here is what build servers agree on: names, counts, seconds, a message.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Final
from xml.sax.saxutils import quoteattr

from agentos.policy.testing import TestResult

_ALLOWED: Final = ((0x20, 0xD7FF), (0xE000, 0xFFFD), (0x10000, 0x10FFFF))
"""Characters of XML 1.0 (https://www.w3.org/TR/xml/#charsets), line ends and tabs left out: they are escaped as well."""


def junit(results: Sequence[TestResult]) -> str:
    """The whole document. Characters that XML cannot hold are written as `\\u001b`."""
    failed = sum(one.failed for one in results)
    skipped = sum(one.skipped for one in results)
    counts = f'tests="{len(results)}" failures="{failed}" skipped="{skipped}" time="{_seconds(results)}"'
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', f'<testsuites name="rego" {counts}>']
    for (package, path), group in groupby(results, key=lambda one: (one.package, one.path)):
        lines += _suite(package, path, list(group))
    return "\n".join([*lines, "</testsuites>"])


def _suite(package: str, path: str, results: Sequence[TestResult]) -> list[str]:
    failed = sum(one.failed for one in results)
    skipped = sum(one.skipped for one in results)
    counts = f'tests="{len(results)}" failures="{failed}" errors="0" skipped="{skipped}" time="{_seconds(results)}"'
    lines = [f"  <testsuite name={_attribute(package)} file={_attribute(path)} {counts}>"]
    for one in results:
        names = f"classname={_attribute(package)} name={_attribute(one.name)} file={_attribute(path)}"
        case = f'    <testcase {names} line="{one.line}" time="{one.seconds:.6f}"'
        if one.skipped:
            lines.append(f"{case}><skipped/></testcase>")
        elif one.failed:
            message = f"{path}:{one.line}: {one.message}"
            lines.append(f"{case}><failure message={_attribute(message)}/></testcase>")
        else:
            lines.append(f"{case}/>")
    return [*lines, "  </testsuite>"]


def _seconds(results: Sequence[TestResult]) -> str:
    return f"{sum(one.seconds for one in results):.6f}"


def _attribute(text: str) -> str:
    return quoteattr("".join(char if _is_allowed(char) else f"\\u{ord(char):04x}" for char in text))


def _is_allowed(char: str) -> bool:
    return any(first <= ord(char) <= last for first, last in _ALLOWED)
