"""Do the Rego tests notice when a policy loses a guard or a rule? `python tests/mutation/policies.py [--each] [PATH…]`

Each shipped policy is changed in one place at a time: a rule is removed, one condition of a body is removed, a comparison is
turned around, or a `not` is dropped. The tests beside the policies run on each mutant; one that all of them pass has survived.
A mutant that OPA refuses to load is not counted: it could not have been shipped. Axioms are tested together by target, each
library rule by the tests in its folder. A PATH (`policies/library`, `policies/agentos/syscall`) takes only what is below it.
Exit code 1 below the threshold.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context

from agentos.abi.assets import asset
from agentos.abi.errors import PolicyError
from agentos.policy.bundle import axiom_tests, axioms, is_test
from agentos.policy.port import Module
from agentos.policy.testing import run_rego_tests

THRESHOLD = 0.85
_TURNED = ((" == ", " != "), (" != ", " == "), (" < ", " >= "), (" <= ", " > "), (" >= ", " < "), (" > ", " <= "))


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one module: where, what was done, and the source after it."""

    module: Module
    line: int
    change: str
    source: str

    def __str__(self) -> str:
        return f"{self.module.path}:{self.line}: {self.change}"


def mutants(module: Module) -> Iterator[Mutant]:
    """Every mutant of a module, in order of its lines."""
    lines = module.source.split("\n")
    for first, last in _rules(lines):
        yield Mutant(module, first + 1, f"without the rule {lines[first][:50]!r}", _without(lines, range(first, last + 1)))
    for number, line in enumerate(lines):
        bare = line.strip()
        if not line.startswith(("\t", "}")) or not bare or bare.startswith("#"):
            yield from _turned(module, lines, number)
            continue
        if _is_condition(lines, number):
            yield Mutant(module, number + 1, f"without {bare!r}", _without(lines, range(number, number + 1)))
        if bare.startswith("not "):
            yield Mutant(module, number + 1, f"{bare!r} without its not", _with(lines, number, line.replace("not ", "", 1)))
        yield from _turned(module, lines, number)


def _turned(module: Module, lines: Sequence[str], number: int) -> Iterator[Mutant]:
    line = lines[number]
    if line.lstrip().startswith("#"):
        return
    for sign, other in _TURNED:
        if sign in line:
            yield Mutant(
                module,
                number + 1,
                f"{line.strip()!r} with{other.rstrip()} for{sign.rstrip()}",
                _with(lines, number, line.replace(sign, other, 1)),
            )


def _rules(lines: Sequence[str]) -> Iterator[tuple[int, int]]:
    """First and last line of each rule: it begins at the margin and ends before the next blank line at the margin."""
    start: int | None = None
    for number, line in enumerate([*lines, ""]):
        at_margin = bool(line) and not line.startswith(("\t", "}", "#", ")", "]", "package ", "import "))
        if start is None and at_margin:
            start = number
        if start is not None and not line:
            if all(
                not rest or rest.startswith(("\t", "}", ")", "]", "#")) or number == start
                for number, rest in enumerate(lines[start:number], start)
            ):
                yield start, number - 1
            start = None


def _is_condition(lines: Sequence[str], number: int) -> bool:
    """A line of a body that is a whole condition: not an assignment that others need, not part of a longer expression."""
    bare = lines[number].strip()
    if re.match(r"(some .*|every .*\{|[\w\[\], ]+ := .*|\} else.*|[\]\)\}].*|\"[^\"]*\".*[,:]|.*[,\(\[\{])$", bare):
        return False
    depth = 0
    for line in lines[:number]:
        code = line.split("#")[0]
        depth += sum(code.count(sign) for sign in "([") - sum(code.count(sign) for sign in ")]")
    return depth == 0


def _without(lines: Sequence[str], gone: range) -> str:
    return "\n".join(line for number, line in enumerate(lines) if number not in gone)


def _with(lines: Sequence[str], number: int, line: str) -> str:
    return "\n".join([*lines[:number], line, *lines[number + 1 :]])


@cache
def together(target: str) -> tuple[Module, ...]:
    """All modules that the tests of a target run with: its axioms and the tests beside them."""
    return (*axioms(target), *(module for module in axiom_tests() if module.path.split("/")[2] == target))


@cache
def library() -> dict[str, tuple[Module, ...]]:
    """The rules of the library by folder, each with its tests."""
    root = asset("policies")
    return {
        folder.name: tuple(
            Module(f"policies/{path.relative_to(root).as_posix()}", path.read_text("utf-8"))
            for path in sorted(folder.glob("*.rego"))
        )
        for folder in sorted((root / "library").iterdir())
        if folder.is_dir()
    }


def mutated() -> list[Module]:
    """Every shipped module that is no test, axioms first."""
    return [*axioms(), *(module for folder in library().values() for module in folder if not is_test(module))]


def survives(mutant: Mutant) -> bool | None:
    """Whether every test passes on the mutant; None: it does not load."""
    place = mutant.module.path.split("/")
    beside = library()[place[2]] if place[1] == "library" else together(place[2])
    try:
        return all(
            result.passed
            for result in run_rego_tests([Module(one.path, mutant.source) if one == mutant.module else one for one in beside])
        )
    except PolicyError:
        return None


def main(arguments: Sequence[str]) -> int:
    """Try all mutants on two processors; print those that survive, and the share that was noticed, per part and in all."""
    wanted = [word for word in arguments if not word.startswith("-")]
    every = [
        mutant
        for module in mutated()
        if not wanted or any(module.path.startswith(word) for word in wanted)
        for mutant in mutants(module)
    ]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        outcomes = list(zip(every, pool.map(survives, every, chunksize=4), strict=True))
    loaded = [(mutant, survived) for mutant, survived in outcomes if survived is not None]
    for mutant, survived in loaded:
        if survived or "--each" in arguments:
            print(f"{'survived' if survived else 'noticed'} {mutant}")
    parts: dict[str, list[bool]] = {}
    for mutant, survived in loaded:
        parts.setdefault("/".join(mutant.module.path.split("/")[:3]), []).append(not survived)
    for part, noticed in parts.items():
        print(f"{part}: {sum(noticed)} of {len(noticed)} noticed")
    noticed_at_all = sum(not survived for _, survived in loaded)
    share = noticed_at_all / len(loaded) if loaded else 0.0
    print(f"{len(every)} mutants, {len(every) - len(loaded)} do not load, {noticed_at_all} of {len(loaded)} noticed: {share:.1%}")
    return 0 if share >= THRESHOLD else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
