"""Guards, taken away one at a time: with each of them gone, the part of the corpus that is about it has to fail.

    with MUTANTS["addresses"].without():
        ...                                   # open a world and play MUTANTS["addresses"].groups

A guard that stands behind another one is not seen to be gone; so each of these stands alone for at least one step.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from agentos.credentials.mask import Masker
from agentos.drivers import dispatch, editing, tracked, words
from agentos.drivers.adapters import mcp_offer
from agentos.egress import addresses, incoming
from agentos.files import confine
from agentos.kernel import arguments
from agentos.policy import bundle
from agentos.sandbox import profile
from agentos.sandbox.adapters import bubblewrap, mounts, seccomp


@dataclass(frozen=True, slots=True)
class Mutant:
    """A guard, how it is taken away, and the groups that must notice. `only` picks steps by their ids; laying ones stay."""

    name: str
    without: Callable[[], AbstractContextManager[None]]
    groups: tuple[str, ...]
    only: tuple[str, ...] = ()
    canary: bool = False
    """Whether the credential is looked for afterwards."""


@contextmanager
def _set(target: Any, name: str, value: Any) -> Iterator[None]:
    before = target.__dict__[name]
    setattr(target, name, value)
    try:
        yield
    finally:
        setattr(target, name, before)


@contextmanager
def _everywhere(old: Any, new: Any) -> Iterator[None]:
    """Put `new` in the place of `old` in every module of the runtime that knows it by a name."""
    _swap(old, new)
    try:
        yield
    finally:
        _swap(new, old)


def _swap(old: Any, new: Any) -> None:
    for module in [module for name, module in sys.modules.items() if name.startswith("agentos")]:
        for name, value in list(vars(module).items()):
            if value is old:
                setattr(module, name, new)


def _rego(path: str, text: str, other: str) -> AbstractContextManager[None]:
    """The shipped policy with one text in place of another."""
    real = bundle._shipped

    def shipped() -> tuple[Any, ...]:
        found = []
        for module in real():
            if module.path == path:
                assert text in module.source, path
                module = replace(module, source=module.source.replace(text, other))  # noqa: PLW2901
            found.append(module)
        return tuple(found)

    return _set(bundle, "_shipped", shipped)


@contextmanager
def _follow_links() -> Iterator[None]:
    import os

    with _set(confine, "_FOLDER", confine._FOLDER & ~os.O_NOFOLLOW), _set(confine, "_FILE", confine._FILE & ~os.O_NOFOLLOW):
        yield


def _any_path() -> AbstractContextManager[None]:
    """Whatever a path says: `..` and a root of its own among it."""

    def split(path: str) -> tuple[str, ...]:
        names = tuple(name for name in path.split("/") if name not in ("", "."))
        return ("/", *names) if path.startswith("/") else names

    return _set(confine, "split", split)


def _any_address() -> AbstractContextManager[None]:
    return _everywhere(addresses.refusal, lambda address, private=(): None)


def _first_address() -> AbstractContextManager[None]:
    check = addresses.check

    def first(answers: Any, private: Any, host: str = "") -> Any:
        return check(answers[:1], private, host)

    return _everywhere(check, first)


@contextmanager
def _no_mask() -> Iterator[None]:
    with _set(Masker, "spans", lambda self, data: []):
        yield


def _no_file_mask() -> AbstractContextManager[None]:
    capture = tracked.Tracking._capture

    def unmasked(self: Any, place: Any, context: Any, author: Any, guard: Any, mask: Any) -> Any:
        return capture(self, place, context, author, guard, lambda data: data)

    return _set(tracked.Tracking, "_capture", unmasked)


def _no_filter() -> AbstractContextManager[None]:
    allow = struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000)
    return _everywhere(seccomp.filter_program, lambda: allow)


def _host_network() -> AbstractContextManager[None]:
    return _set(bubblewrap, "_ALWAYS", tuple(word for word in bubblewrap._ALWAYS if word != "--unshare-net"))


def _any_word() -> AbstractContextManager[None]:
    real = words._of_argument

    def behind(name: str, flag: Any, args: Any, *, behind_end: bool) -> list[str]:
        return real(name, flag, args, behind_end=True)

    return _set(words, "_of_argument", behind)


def _any_offer() -> AbstractContextManager[None]:
    return _everywhere(mcp_offer.refused, lambda wanted, tools, server: None)


def _any_version() -> AbstractContextManager[None]:
    return _everywhere(editing.as_meant, lambda *_: lambda look, there, new: None)


def _many_processes() -> AbstractContextManager[None]:
    real = profile.profile_of

    def wide(resource: Any) -> Any:
        found = real(resource)
        return replace(found, limits=replace(found.limits, processes=4096))

    return _everywhere(real, wide)


def _no_labels() -> AbstractContextManager[None]:
    real = dispatch.tool_spec
    return _everywhere(real, lambda resource: replace(real(resource), labels=()))


def _any_arguments() -> AbstractContextManager[None]:
    return _everywhere(arguments.compile_check, lambda schema: lambda args: None)


def _any_mount() -> AbstractContextManager[None]:
    real = mounts.declared
    return _everywhere(real, lambda mount, home, trees: real(mount, None, trees))


def _any_host() -> AbstractContextManager[None]:
    return _set(incoming, "_same", lambda value, asked, default, message: None)


_RULES = "policies/agentos/syscall/rules"
MUTANTS = (
    Mutant("links are followed (files.confine)", _follow_links, ("links",)),
    Mutant("paths are taken as they come (files.confine)", _any_path, ("paths",), ("path-fs",)),
    Mutant(
        "no rule about paths (Rego, workspace)",
        lambda: _rego(f"{_RULES}/workspace/workspace.rego", "[input.syscall.tool].workspace_args", '["none"].workspace_args'),
        ("paths",),
        ("path-read",),
    ),
    Mutant(
        "no rule about requests (Rego, network)",
        lambda: _rego(f"{_RULES}/network/network.rego", 'input.syscall.tool == "net-request"', 'input.syscall.tool == "none"'),
        ("requests that are looked into",),
        ("inspected-path", "inspected-method"),
    ),
    Mutant(
        "a grant covers every tool (Rego, grants)",
        lambda: _rego(f"{_RULES}/grants/grants.rego", "data.agentos.grants[agent][tool]", 'data.agentos.grants[agent]["read"]'),
        ("unicode",),
        ("tool-",),
    ),
    Mutant("every address is public (egress.addresses)", _any_address, ("requests of drivers",), ("ssrf-", "redirect-")),
    Mutant("only the first answer is judged (egress.addresses)", _first_address, ("requests of drivers",), ("ssrf-mixed",)),
    Mutant("a request may name another host (egress.incoming)", _any_host, ("requests of sandboxes",), ("odd-",)),
    Mutant("nothing is masked (credentials.mask)", _no_mask, ("canary",), ("exec-text", "http"), canary=True),
    Mutant("files are not masked (drivers.tracked)", _no_file_mask, ("canary",), ("exec-file",), canary=True),
    Mutant(
        "no system call filter (sandbox.seccomp)", _no_filter, ("sandbox probes",), ("namespaces", "keyrings", "kernel-calls")
    ),
    Mutant("the host's network (sandbox.bubblewrap)", _host_network, ("sandbox agent",), ("sandbox-nats", "every-port")),
    Mutant("the runtime's home may be mounted (sandbox.mounts)", _any_mount, ("mounts",)),
    Mutant("as many processes as it likes (sandbox.profile)", _many_processes, ("sandbox agent",), ("fork-bomb",)),
    Mutant("a word may be an option (drivers.words)", _any_word, ("words",), ("dash-",)),
    Mutant("a server may offer anything (drivers.mcp_offer)", _any_offer, ("mcp hostile",), ("pinned", "changes", "vanishes")),
    Mutant("a file may be written over unseen (drivers.editing)", _any_version, ("conflicts",)),
    Mutant("results carry no labels (drivers.dispatch)", _no_labels, ("mcp instructions",)),
    Mutant(
        "arguments are not checked (kernel.arguments)", _any_arguments, ("words", "unicode"), ("extra", "object-for", "value-")
    ),
)
