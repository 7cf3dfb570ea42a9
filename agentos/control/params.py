"""Reading the parameters of a verb: whatever is missing, of another type or unknown is said, never guessed."""

from __future__ import annotations

from agentos.abi.canonical import Json
from agentos.abi.errors import UsageError
from agentos.abi.ids import is_name


class Params:
    """The parameters of one request. Take each, then call `end`."""

    def __init__(self, params: dict[str, Json]) -> None:
        self._params = dict(params)

    def text(self, key: str, *, longest: int = 4096) -> str:
        """A required text of 1 to `longest` characters."""
        value = self._params.pop(key, None)
        if not isinstance(value, str) or not value or len(value) > longest:
            raise UsageError(f"parameter {key}: expected a text of 1 to {longest} characters")
        return value

    def text_or_none(self, key: str, *, longest: int = 4096) -> str | None:
        """An optional text."""
        return self.text(key, longest=longest) if self._params.get(key) is not None else self._params.pop(key, None)

    def content(self, key: str, *, longest: int) -> str:
        """A required text that may be empty."""
        value = self._params.pop(key, None)
        if not isinstance(value, str) or len(value) > longest:
            raise UsageError(f"parameter {key}: expected a text of at most {longest} characters")
        return value

    def number(self, key: str, *, default: int, lowest: int = 0, highest: int) -> int:
        """An optional whole number."""
        value = self._params.pop(key, default)
        if type(value) is not int or not lowest <= value <= highest:
            raise UsageError(f"parameter {key}: expected a whole number from {lowest} to {highest}")
        return value

    def flag(self, key: str) -> bool:
        """An optional true or false, false by default."""
        value = self._params.pop(key, False)
        if not isinstance(value, bool):
            raise UsageError(f"parameter {key}: expected true or false")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A required list of texts."""
        value = self._params.pop(key, None)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise UsageError(f"parameter {key}: expected a list of texts")
        return tuple(value)

    def names(self, key: str, *, most: int = 100) -> tuple[str, ...]:
        """An optional list of at most `most` names."""
        value = self._params.pop(key, [])
        if not isinstance(value, list) or len(value) > most or not all(isinstance(item, str) and is_name(item) for item in value):
            raise UsageError(f"parameter {key}: expected a list of at most {most} names")
        return tuple(value)

    def listed(self, key: str) -> list[Json] | None:
        """An optional list of anything."""
        value = self._params.pop(key, None)
        if value is not None and not isinstance(value, list):
            raise UsageError(f"parameter {key}: expected a list")
        return value

    def mapping(self, key: str, *, most: int = 100) -> dict[str, Json]:
        """An optional object with at most `most` keys."""
        value = self._params.pop(key, {})
        if not isinstance(value, dict) or len(value) > most:
            raise UsageError(f"parameter {key}: expected an object with at most {most} keys")
        return value

    def end(self) -> None:
        """Refuse what nobody took."""
        if self._params:
            raise UsageError(f"unknown parameters: {', '.join(sorted(self._params))}")
