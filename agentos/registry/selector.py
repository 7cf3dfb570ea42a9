"""Selecting resources by label: `team=support,stage=prod` is what carries both.

>>> Selector.parse("team=support").matches({"team": "support", "stage": "prod"})
True
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agentos.abi.errors import UsageError


@dataclass(frozen=True, slots=True)
class Selector:
    """Labels that must all be there with these values; never empty."""

    labels: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: str) -> Selector:
        """Read `key=value[,key=value…]`. Raises UsageError for anything else, an empty selector among it."""
        wanted: dict[str, str] = {}
        for part in text.split(","):
            key, equals, value = (word.strip() for word in part.partition("="))
            if not equals or not key or "=" in value or key in wanted or key.endswith("!"):
                raise UsageError(f"{text!r} is not a label selector", mend="write key=value, several joined by commas")
            wanted[key] = value
        return cls(tuple(sorted(wanted.items())))

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether `labels` carries every wanted label."""
        return all(labels.get(key) == value for key, value in self.labels)

    def __str__(self) -> str:
        return ",".join(f"{key}={value}" for key, value in self.labels)
