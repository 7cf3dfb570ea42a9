"""What a syntax error of the YAML parser means to the author of the file, and where it should point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import yaml

from agentos.manifests.position import LINE_BREAK, Mark


@dataclass(frozen=True, slots=True)
class Flaw:
    """Something wrong with the text itself, before it means anything."""

    code: str
    mark: Mark
    message: str
    mend: str = ""


_SAID: Final[tuple[tuple[str, str, str], ...]] = (
    (
        "mapping values are not allowed",
        "a second colon on this line, or a line indented too far",
        "quote a text that contains ': ', or line the keys up",
    ),
    ("found unexpected end of stream", "the quotes opened here are never closed", "close them"),
    ("found unexpected document indicator", "the quotes opened here are not closed before the document ends", "close them"),
    ("did not find expected ',' or ']'", "the list opened with [ is not closed, or a comma is missing", "add the ] or the comma"),
    (
        "did not find expected ',' or '}'",
        "the mapping opened with { is not closed, or a comma is missing",
        "add the } or the comma",
    ),
    ("did not find expected key", "this line does not fit the lines above it", "line the keys of one mapping up in one column"),
    (
        "did not find expected '-' indicator",
        "this line does not fit the list above it",
        "line the dashes of one list up in one column",
    ),
    (
        "could not find expected ':'",
        "a key without a colon",
        "write `key: value`; indent the lines of a longer text below its key",
    ),
    ("block sequence entries are not allowed", "a list cannot begin here", "begin it on the next line, indented below its key"),
    ("block mapping entries are not allowed", "a mapping cannot begin here", "begin it on the next line, indented below its key"),
    (
        "block collection entries are not allowed",
        "a block cannot begin here",
        "begin it on the next line, indented below its key",
    ),
    (
        "found unknown escape character",
        "this escape is not known in double quotes",
        "write \\\\ for a backslash, or use single quotes",
    ),
    ("did not find expected <document start>", "text after the end of the document", "begin the next document with ---"),
    ("found undefined tag handle", "tags are not read", "remove it"),
    ("found invalid Unicode character escape code", "this escape names half a character", "write the character itself"),
    (
        "did not find expected alphabetic or numeric character",
        "an anchor or alias without a name",
        "quote a text that begins with & or *",
    ),
    (
        "did not find expected node content",
        "a value is missing here, or a bracket above is still open",
        "write the value, or close the bracket",
    ),
    ("found duplicate %YAML directive", "two %YAML directives", "remove both"),
    (
        "found incompatible YAML document",
        "this version of YAML is not read",
        "remove the directive: everything is read as YAML 1.2",
    ),
    ("invalid leading UTF-8", "the text is not UTF-8", "save the file as UTF-8"),
)
_UNCLOSED: Final = ("found unexpected end of stream", "found unexpected document indicator")
"""Problems whose cause is where the scan began, not where it ended."""


def explain(error: yaml.MarkedYAMLError, content: str, base: int) -> Flaw:
    """The flaw that `error` stands for. `base` is the line (from 1) at which `content` begins in its file."""
    problem = error.problem or error.context or "this cannot be read as YAML"
    at = error.problem_mark or error.context_mark
    if problem.startswith(_UNCLOSED) and error.context_mark is not None:
        at = error.context_mark
    if at is None:
        return Flaw("yaml.syntax", (base, 1, 2, None), problem)
    lines = LINE_BREAK.split(content)
    if error.context_mark is not None and not "".join(lines[at.line : at.line + 1]).strip():
        # Noticed on an empty line, usually behind the end: what was begun and not ended shows more.
        at = error.context_mark
    mark: Mark = (at.line + base, at.column + 1, at.column + 2, None)
    line = lines[at.line] if at.line < len(lines) else ""
    indent = line[: len(line) - len(line.lstrip())]
    if "\t" in indent:
        place = (at.line + base, indent.index("\t") + 1, indent.index("\t") + 2, None)
        return Flaw("yaml.tab", place, "a tab in the indentation", "indent with spaces: YAML does not allow tabs there")
    if problem.startswith("found character that cannot start any token") or "found a tab character" in problem:
        return _bad_start(line[at.column : at.column + 1], mark)
    for beginning, message, mend in _SAID:
        if problem.startswith(beginning):
            opened = error.context_mark if problem.startswith("did not find expected ','") else None
            where = f" (opened at line {opened.line + base}, column {opened.column + 1})" if opened else ""
            return Flaw("yaml.syntax", mark, message + where, mend)
    return Flaw("yaml.syntax", mark, problem)


def _bad_start(char: str, mark: Mark) -> Flaw:
    if char == "\t":
        return Flaw("yaml.tab", mark, "a tab where a value should begin", "use spaces: YAML does not allow tabs there")
    return Flaw("yaml.syntax", mark, f"a value cannot begin with {char or 'this'}", "put the value in quotes")
