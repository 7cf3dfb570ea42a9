"""From YAML text to values with marks, under limits that hold while the text is read.

The parser of libyaml hands over a flat stream of events; documents are put together here from that stream, without
recursion. So depth, aliases, tags and duplicate keys are judged as they come, and no input can exhaust the stack or the
memory: `[[[[…` is refused behind its hundredth bracket, an alias bomb at the alias that would exceed the limit. A flaw does
not end the reading where it can go on: after a syntax error it starts again at the next `---`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import yaml
from yaml._yaml import CParser

from agentos.abi.canonical import Json
from agentos.manifests import strict
from agentos.manifests.fault import shown
from agentos.manifests.position import LINE_BREAK, Mark, Text
from agentos.manifests.scalar import NotJson, resolve
from agentos.manifests.syntax import Flaw, explain


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one file may be."""

    size: int = 1024 * 1024
    """Bytes of the file."""
    depth: int = 100
    """Nested lists and mappings, those behind aliases included. Canonical JSON is read to 200 by everybody else."""
    expansion: int = 4 * 1024 * 1024
    """Characters that all aliases together may stand for."""
    restarts: int = 50
    """Syntax errors reported per file, after which the rest is not read."""


DEFAULT_LIMITS: Final = Limits()

Event = Any
"""An event of the parser. The published types of PyYAML's events lack their fields."""


@dataclass(slots=True)
class Composed:
    """One document: its value, the marks of it, and whether all of it could be read (a merge key, for one, is left out)."""

    value: Json
    mark: Mark
    whole: bool = True


@dataclass(slots=True)
class Reading:
    """What one text gave: documents, flaws, and the lines of documents that could not be read at all."""

    documents: list[Composed] = field(default_factory=list)
    flaws: list[Flaw] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


_FORBIDDEN: Final = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that YAML 1.2 (production c-printable) does not allow in a stream."""


def compose(text: Text, limits: Limits = DEFAULT_LIMITS) -> Reading:
    """Read every document of `text`. Never raises for any content; whatever is wrong is a Flaw with its place."""
    reading = Reading()
    content = strict.completed(text.content)
    forbidden = _FORBIDDEN.search(content)
    if forbidden:
        before = LINE_BREAK.split(content[: forbidden.start()])
        mark = (len(before), len(before[-1]) + 1, len(before[-1]) + 2, None)
        code = f"U+{ord(forbidden.group()):04X}"
        reading.flaws.append(
            Flaw(
                "yaml.character",
                mark,
                f"character {code} may not stand in YAML",
                f'in double quotes, write it as "\\u{code[2:]}"',
            )
        )
        reading.unread.append(content)
        return reading
    base = 0
    for _ in range(limits.restarts):
        composer = _Composer(content, base, limits, reading)
        stopped = composer.run()
        if stopped is None:
            return reading
        # The next document may be sound; begin again where it starts, behind whatever stopped this one.
        first = composer.document_line
        after = _next_document(text, max(stopped, first + 1))
        reading.unread.append("\n".join(text.lines[first - 1 : after - 1]))
        if after > len(text.lines):
            return reading
        content, base = "\n".join(text.lines[after - 1 :]), after - 1
    reading.unread.append(content)
    return reading


def _next_document(text: Text, line: int) -> int:
    """The first line at or after `line` that begins a document; one past the end if none does."""
    for number in range(line, len(text.lines) + 1):
        if re.match(r"---(\s|$)", text.line(number)):
            return number
    return len(text.lines) + 1


class _Stop(Exception):
    """This document cannot be read on."""

    def __init__(self, code: str, mark: Mark, message: str, mend: str) -> None:
        super().__init__(message)
        self.flaw = Flaw(code, mark, message, mend)


@dataclass(slots=True, eq=False)
class _Frame:
    """A list or mapping that is still open."""

    value: Json
    inside: dict[str, tuple[Mark, Mark]] | list[Mark]
    mark: Mark
    anchor: str | None
    weight: int
    """Characters read when it was opened."""
    height: int = 0
    """Levels inside it so far."""
    key: str | None = None
    key_mark: Mark | None = None
    """The key whose value comes next; None when a key comes next. A `key` of None beside a mark drops the value."""


@dataclass(frozen=True, slots=True)
class _Anchored:
    value: Json
    mark: Mark
    weight: int
    height: int


class _Composer:
    """Puts documents together from the events of one run of the parser."""

    def __init__(self, content: str, base: int, limits: Limits, reading: Reading) -> None:
        self._parser = CParser(content)
        self._content = content
        self._base = base + 1
        self._limits = limits
        self._reading = reading
        self._anchors: dict[str, _Anchored | None] = {}
        self._frames: list[_Frame] = []
        self._weight = 0
        self._expanded = 0
        self._root: tuple[Json, Mark] | None = None
        self._whole = True
        self._ended = True
        """Whether a directive may come: at the beginning, and behind an explicit end of a document."""
        self._odd_question = strict.ODD_QUESTION.search(content) is not None
        self.document_line = self._base
        """Where the document that is being read begins."""
        self._handlers: dict[type, Callable[[Event], None]] = {
            yaml.StreamStartEvent: _nothing,
            yaml.StreamEndEvent: _nothing,
            yaml.DocumentStartEvent: self._document_start,
            yaml.DocumentEndEvent: self._document_end,
            yaml.MappingStartEvent: self._open,
            yaml.SequenceStartEvent: self._open,
            yaml.MappingEndEvent: self._close,
            yaml.SequenceEndEvent: self._close,
            yaml.ScalarEvent: self._scalar,
            yaml.AliasEvent: self._alias,
        }

    def run(self) -> int | None:
        """Read to the end; None when it was reached, otherwise the line (from 1) of what stopped the reading."""
        handlers, parser = self._handlers, self._parser
        try:
            while (event := parser.get_event()) is not None:
                handlers[type(event)](event)
        except yaml.MarkedYAMLError as error:
            flaw = explain(error, self._content, self._base)
        except yaml.YAMLError as error:
            flaw = Flaw("yaml.syntax", (self.document_line, 1, 2, None), f"this cannot be read as YAML: {error}")
        except _Stop as stop:
            flaw = stop.flaw
        else:
            return None
        self._reading.flaws.append(flaw)
        return flaw.mark[0]

    def _document_start(self, event: Event) -> None:
        self._anchors = {}
        self._root = None
        self._whole = True
        self.document_line = event.start_mark.line + self._base
        version = event.version
        if (version is not None or event.tags) and not self._ended:
            raise _Stop(
                "yaml.syntax",
                self._mark(event),
                "a directive inside a document",
                "remove it, or end the document before it with ...",
            )
        if version is not None and tuple(version) != (1, 2):
            written = ".".join(str(part) for part in version)
            self._flaw(
                "yaml.version",
                self._mark(event),
                f"YAML {written} is not read",
                "remove the directive: everything is read as YAML 1.2",
            )

    def _document_end(self, event: Event) -> None:
        # The next document, if it turns out to be broken, begins no earlier than here.
        self.document_line = event.end_mark.line + self._base
        self._ended = event.explicit
        if self._root is not None:
            value, mark = self._root
            self._reading.documents.append(Composed(value, mark, self._whole))

    def _open(self, event: Event) -> None:
        mark = self._mark(event)
        self._check_tag(event, mark)
        if len(self._frames) >= self._limits.depth:
            raise _Stop("yaml.depth", mark, f"nested deeper than {self._limits.depth} levels", "write it flatter")
        if event.anchor is not None:
            self._slip(strict.anchor(self._content, event), mark)
            self._anchors[event.anchor] = None
        if type(event) is yaml.MappingStartEvent:
            frame = _Frame({}, {}, mark, event.anchor, self._weight)
        else:
            frame = _Frame([], [], mark, event.anchor, self._weight)
        self._weight += 2
        self._frames.append(frame)

    def _close(self, event: Event) -> None:
        frame = self._frames.pop()
        line, column, end, _ = frame.mark
        mark = (line, column, end, frame.inside)
        self._slip(strict.comment(self._content, event), self._mark(event))
        if frame.anchor is not None:
            self._anchors[frame.anchor] = _Anchored(frame.value, mark, self._weight - frame.weight, frame.height + 1)
        self._put(frame.value, mark, frame.height + 1)

    def _scalar(self, event: Event) -> None:
        start, end = event.start_mark, event.end_mark
        line = start.line
        mark = (line + self._base, start.column + 1, end.column + 1 if end.line == line else 0, None)
        text: str = event.value
        self._weight += len(text) + 1
        value: Json = text
        if event.tag is not None:
            self._check_tag(event, mark)
        elif event.style:
            self._slip(strict.comment(self._content, event), mark)
        else:
            self._slip(strict.dash(text), mark)
            try:
                value = resolve(text)
            except NotJson as error:
                self._flaw(
                    "yaml.number",
                    mark,
                    str(error),
                    f'quote it to keep it as text: "{text[:20]}"' if len(text) <= 20 else "quote it to keep it as text",
                )
        if event.anchor is not None:
            self._slip(strict.anchor(self._content, event), mark)
            self._anchors[event.anchor] = _Anchored(value, mark, len(text) + 1, 0)
        frames = self._frames
        if frames and frames[-1].key_mark is None and type(frames[-1].inside) is dict:
            if self._odd_question:
                self._slip(strict.question(self._content, event), mark)
            self._key(frames[-1], value, mark, plain=not event.style)
        else:
            self._put(value, mark, 0)

    def _alias(self, event: Event) -> None:
        mark = self._mark(event)
        name = event.anchor
        self._slip(strict.anchor(self._content, event), mark)
        if name not in self._anchors:
            raise _Stop("yaml.alias", mark, f"alias *{name} has no anchor &{name} before it", "anchors hold within one document")
        target = self._anchors[name]
        if target is None:
            raise _Stop(
                "yaml.alias", mark, f"alias *{name} stands inside its own anchor", "a value cannot hold itself: write it out"
            )
        self._expanded += target.weight
        self._weight += target.weight
        if self._expanded > self._limits.expansion:
            raise _Stop(
                "yaml.alias",
                mark,
                f"aliases stand for more than {self._limits.expansion} characters in all",
                "write the values out, or use fewer aliases",
            )
        if len(self._frames) + target.height > self._limits.depth:
            raise _Stop(
                "yaml.depth", mark, f"alias *{name} makes this nest deeper than {self._limits.depth} levels", "write it flatter"
            )
        frame = self._frames[-1] if self._frames else None
        if frame is not None and frame.key_mark is None and type(frame.inside) is dict:
            self._bad_key(frame, mark, f"alias *{name} stands as a key", "write the key out")
        else:
            # The place is that of the anchor: that is where what is wrong with the value is mended.
            self._put(target.value, target.mark, target.height)

    def _put(self, value: Json, mark: Mark, height: int) -> None:
        """Add a finished value to the list or mapping that is open."""
        if not self._frames:
            self._root = (value, mark)
            return
        frame = self._frames[-1]
        frame.height = max(frame.height, height)
        inside = frame.inside
        if type(inside) is list:
            frame.value.append(value)
            inside.append(mark)
        elif frame.key_mark is None:
            self._bad_key(frame, mark, f"a key must be text, got {shown(value)}", "write a plain word before the colon")
        else:
            key, key_mark = frame.key, frame.key_mark
            frame.key = frame.key_mark = None
            if key is not None and type(inside) is dict:
                frame.value[key] = value
                inside[key] = (key_mark, mark)

    def _key(self, frame: _Frame, value: Json, mark: Mark, *, plain: bool) -> None:
        if type(value) is not str:
            self._bad_key(frame, mark, f"a key must be text, got {shown(value)}", f'quote it: "{shown(value)}":')
        elif plain and value == "<<":
            self._whole = False
            self._bad_key(frame, mark, "merge keys (<<) are not part of YAML 1.2 and are not read", "write the fields out")
        elif type(frame.inside) is dict and value in frame.inside:
            first = frame.inside[value][0]
            self._flaw(
                "yaml.duplicate-key",
                mark,
                f"key {shown(value)} stands twice in one mapping (first at line {first[0]}, column {first[1]})",
                "remove one of the two",
            )
            frame.key, frame.key_mark = None, mark
        else:
            frame.key, frame.key_mark = value, mark

    def _bad_key(self, frame: _Frame, mark: Mark, message: str, mend: str) -> None:
        """Report a key that is none, and drop the value that follows."""
        self._flaw("yaml.key", mark, message, mend)
        frame.key, frame.key_mark = None, mark

    def _check_tag(self, event: Event, mark: Mark) -> None:
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self._flaw("yaml.tag", mark, f"tag {shown(tag)[1:-1]} is not read", "remove it; quotes make text of a value")

    def _slip(self, slip: strict.Slip | None, mark: Mark) -> None:
        if slip is not None:
            raise _Stop("yaml.syntax", mark, *slip)

    def _mark(self, event: Event) -> Mark:
        start, end = event.start_mark, event.end_mark
        return (start.line + self._base, start.column + 1, end.column + 1 if end.line == start.line else 0, None)

    def _flaw(self, code: str, mark: Mark, message: str, mend: str = "") -> None:
        self._reading.flaws.append(Flaw(code, mark, message, mend))


def _nothing(_event: Event) -> None:
    """Events that carry nothing."""
