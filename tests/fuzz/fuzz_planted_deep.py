"""A place that only coverage leads to."""

from __future__ import annotations


def reached(data: bytes) -> bool:
    """Whether the bytes begin with one word of three letters."""
    if len(data) < 3 or data[0] != ord("q"):
        return False
    if data[1] != ord("u"):
        return False
    return data[2] == ord("a")
