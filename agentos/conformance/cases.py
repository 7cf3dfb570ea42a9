"""What a case is, and the list of all of them.

A case is a function of a fresh process. Its first word is what it is about; `--only` takes an id or such a word.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from agentos.conformance.stage import Stage

Play = Callable[[Stage], Awaitable[None]]


class NotSeen(Exception):
    """The case could not be tried here; the words say why."""


@dataclass(frozen=True, slots=True)
class Case:
    """One case. `title` is the rule that a harness has to keep."""

    id: str
    title: str
    play: Play

    @property
    def group(self) -> str:
        """The first word of the id."""
        return self.id.partition(".")[0]


class Cases:
    """Collects the cases of a group, in the order in which they are written."""

    def __init__(self, group: str) -> None:
        self.group = group
        self.all: list[Case] = []

    def __call__(self, name: str, title: str) -> Callable[[Play], Play]:
        """Adds what it decorates."""

        def add(play: Play) -> Play:
            self.add(name, title, play)
            return play

        return add

    def add(self, name: str, title: str, play: Play) -> None:
        """Add a case."""
        self.all.append(Case(f"{self.group}.{name}", title, play))


def all_cases() -> tuple[Case, ...]:
    """Every case, in the order of a report."""
    from agentos.conformance import cases_apart, cases_leaving, cases_odd, cases_reuse, cases_turn, cases_view

    lists = (cases_view.LISTS, cases_turn.LISTS, cases_leaving.LISTS, cases_reuse.LISTS, cases_odd.LISTS, cases_apart.LISTS)
    return tuple(case for several in lists for one in several for case in one.all)
