"""The one place that touches the OPA library: it is loaded late, once, in the process that evaluates.

What is known about the library and handled here: its garbage collector is tuned by `GOGC` read when it loads; it
does not survive a fork; its errors are text, `file:line: code: message`; a module nested thousands deep takes
seconds to read. Everything the library raises leaves here as PolicyError or EngineUnavailable.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from typing import Any, Final

from agentos.abi.canonical import Json
from agentos.abi.errors import EngineUnavailable, PolicyError
from agentos.policy import syntax
from agentos.policy.port import Module
from agentos.policy.source import Source

INSTALL: Final = "install it: pip install --ignore-requires-python opa-golib-python-bindings==0.4.4"

MAX_SOURCE: Final = 256 * 1024
"""Longest Rego file in characters."""

MAX_NESTING: Final = 100
"""Deepest nesting of brackets in a Rego file; reading 5,000 levels takes the library four seconds."""

_OPA_OF_BINDING: Final = {"0.4.4": "1.20"}
"""Which OPA a release of the wheel carries; the library itself does not tell."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """One error of OPA about a file. `row` and `column` start at 1; `column` is 1 where OPA does not say."""

    path: str
    row: int
    column: int
    code: str
    message: str


@dataclass(slots=True)
class _State:
    """What one process has of the library: the process that loaded it, and the engine that only parses."""

    pid: int | None = None
    parser: Any = None


_state: Final = _State()
_lock: Final = threading.Lock()
_parser_lock: Final = threading.Lock()


def bindings() -> Any:
    """The binding's module, loaded once. Raises EngineUnavailable where it is missing or the process was forked since."""
    if _state.pid is not None and _state.pid != os.getpid():
        raise forked()
    with _lock:
        # Read by the Go runtime when the library loads: collecting less often takes the p99 from 2.1 to 0.65 ms.
        os.environ.setdefault("GOGC", "400")
        try:
            import opa_bindings
        except (ImportError, OSError) as error:
            raise EngineUnavailable("the policy engine (OPA) is not installed: everything is denied", mend=INSTALL) from error
        _state.pid = os.getpid()
        return opa_bindings


def forked() -> EngineUnavailable:
    """The error of a process that inherited the library by fork: the threads of its Go runtime are gone, calls would hang."""
    return EngineUnavailable(
        "the policy engine does not survive a fork of its process",
        mend="start the child with the spawn method, and load the engine there",
    )


def version() -> str:
    """`opa 1.20 (in process, opa-golib-python-bindings 0.4.4)`. Raises EngineUnavailable when it is not installed."""
    try:
        binding = importlib.metadata.version("opa-golib-python-bindings")
    except importlib.metadata.PackageNotFoundError as error:
        raise EngineUnavailable("the policy engine (OPA) is not installed: everything is denied", mend=INSTALL) from error
    return f"opa {_OPA_OF_BINDING.get(binding, 'of unknown version')} (in process, opa-golib-python-bindings {binding})"


def build(modules: Sequence[Module], data: Json) -> Any:
    """A new OPA engine that holds `modules` and `data`, compiled. Raises PolicyError, EngineUnavailable."""
    opa = bindings()
    refuse(modules)
    engine = opa.OpaEngine()
    # `print` in a policy is for its tests; the runtime's error stream is not its place.
    engine.print_handler = _ignore_print
    try:
        for module in modules:
            engine.add_policy(module.path, module.source)
        for piece in _pieces(data):
            engine.add_data(piece)
        _compile(engine, modules)
    except opa.OpaError as error:
        engine.close()
        raise policy_error(error, [module.path for module in modules]) from error
    except (TypeError, ValueError) as error:
        engine.close()
        raise PolicyError(f"the data for the policies is not JSON: {error}") from error
    return engine


_AT_ONCE: Final = 1000
"""Facts of one kind that are handed over at a time."""


def _pieces(data: Json) -> Iterator[Json]:
    """`data` in pieces that OPA merges into it again.

    Writing JSON holds the interpreter: 10,000 grants at once would keep the event loop from deciding anything for 50 ms.
    """
    facts = data.get("agentos") if isinstance(data, dict) else None
    if not isinstance(facts, dict):
        yield data
        return
    large = {name: part for name, part in facts.items() if isinstance(part, dict) and len(part) > _AT_ONCE}
    yield data | {"agentos": {name: part for name, part in facts.items() if name not in large}}
    for name, part in large.items():
        rest = iter(part.items())
        while some := dict(islice(rest, _AT_ONCE)):
            yield {"agentos": {name: some}}


_ENTRIES: Final = ("agentos.syscall", "agentos.approval", "agentos.control", "agentos.admission")

_UNHURRIED: Final = "agentos.admission"
"""The entry that has seconds to answer, not milliseconds, and is seldom asked."""


def _compile(engine: Any, modules: Sequence[Module]) -> None:
    """Compile by asking: OPA compiles on the first evaluation of a query, once for each query.

    So each decision that has milliseconds to be made is asked for once; admission, where there is another, is compiled when it
    is first asked. Whatever is answered to an empty input is no matter: only errors of loading leave here.
    """
    packages = {".".join(syntax.package(parse(module))) for module in modules}
    entries = [name for name in _ENTRIES if name in packages]
    if len(entries) > 1:
        entries = [name for name in entries if name != _UNHURRIED]
    for entry in entries:
        _ask_once(partial(engine.eval_document, f"{entry}.decision", {}))
    if not entries:
        _ask_once(partial(engine.eval_query, "true"))


def _ask_once(ask: Callable[[], object]) -> None:
    try:
        ask()
    except bindings().OpaUndefinedError:
        return
    except bindings().OpaError as error:
        if error.code != "eval_error":
            raise


def refuse(modules: Sequence[Module]) -> None:
    """Raise PolicyError for modules that share a path, or that are too large or too deep to be read."""
    seen: set[str] = set()
    for module in modules:
        if module.path in seen:
            # The library would replace the first in silence: a user's file could take the place of an axiom.
            raise PolicyError("two modules have the same path", where=f"{module.path}:1", mend="rename one of the files")
        seen.add(module.path)
        limits = over_limits(module)
        if limits is not None:
            raise PolicyError(limits.message, where=f"{limits.path}:{limits.row}", mend="split the file")


def refuse_unsteady(modules: Sequence[Module]) -> None:
    """Raise PolicyError, with the line, for a call of a builtin that reaches outside or gives another value each time.

    Such a decision could not be explained later, would differ from engine to engine, and could carry facts away.
    """
    for module in modules:
        tree = parse(module)
        for name in sorted({ref.dotted() for ref in syntax.refs(syntax.without_package(tree))} & syntax.UNSTEADY):
            head, *steps = name.split(".")
            place = Source(module.source, tree).path(head, tuple(steps))[0]
            raise PolicyError(
                f"{name} is not for policies: it reaches outside, or gives another value each time",
                where=f"{module.path}:{place.line}",
                mend="use input.now (milliseconds)" if name == "time.now_ns" else "decide on the input and on data.agentos alone",
            )


def over_limits(module: Module) -> Complaint | None:
    """What makes a file too large to be read at all, or None."""
    if len(module.source) > MAX_SOURCE:
        return Complaint(module.path, 1, 1, "limit", f"the file is longer than {MAX_SOURCE} characters")
    depth = 0
    for row, line in enumerate(module.source.split("\n"), start=1):
        for char in line:
            if char in "([{":
                depth += 1
                if depth > MAX_NESTING:
                    return Complaint(module.path, row, 1, "limit", f"brackets are nested deeper than {MAX_NESTING}")
            elif char in ")]}":
                depth -= 1
    return None


def complaints(message: str, paths: Sequence[str]) -> Iterator[Complaint]:
    """The single errors inside one text of OPA, for the files named `paths`, in its order."""
    if not paths:
        return
    names = "|".join(re.escape(path) for path in sorted(paths, key=len, reverse=True))
    start = re.compile(rf"(?P<path>{names}):(?P<row>\d+): (?P<code>rego_\w+): (?P<message>[^\n]*)(?P<rest>(?:\n\t[^\n]*)*)")
    for found in start.finditer(message):
        column = 1
        lines = found["rest"].split("\n\t")
        if len(lines) >= 3 and lines[-1].strip(" \t") == "^":
            column = len(lines[-1])
        yield Complaint(found["path"], int(found["row"]), column, found["code"], found["message"].strip())


def policy_error(error: Exception, paths: Sequence[str]) -> PolicyError:
    """A PolicyError for what OPA said while loading; `where` is the first place it names, as `file:line`."""
    text = str(getattr(error, "message", error))
    found = list(complaints(text, paths))
    if not found:
        return PolicyError(f"OPA does not load the policies: {text}")
    first = found[0]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return PolicyError(f"{first.message}{more}", where=f"{first.path}:{first.row}", mend="correct the Rego")


_PARSE: Final = "tree := rego.parse_module(input.path, input.source)"


@lru_cache(maxsize=1024)
def _parse(path: str, source: str) -> Json:
    opa = bindings()
    with _parser_lock:
        if _state.parser is None:
            _state.parser = opa.OpaEngine()
        return _state.parser.eval_query(_PARSE, {"path": path, "source": source})[0]["tree"]


def parse(module: Module) -> Json:
    """The syntax tree of a module, as OPA's `rego.parse_module` gives it. It is shared: do not change it.

    Raises PolicyError (its `__cause__` is OPA's error) for what does not parse, EngineUnavailable without an engine.
    """
    limits = over_limits(module)
    if limits is not None:
        raise PolicyError(limits.message, where=f"{limits.path}:{limits.row}", mend="split the file")
    opa = bindings()
    try:
        return _parse(module.path, module.source)
    except opa.OpaError as error:
        raise policy_error(error, [module.path]) from error


def _ignore_print(_message: str, _location: str) -> None:
    return
