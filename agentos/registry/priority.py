"""A PriorityClass as it is declared, and as the scheduler has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from agentos.abi.canonical import Json
from agentos.scheduler.classes import PriorityClass

_AGING_SECONDS: Final = 60


def priority_class(name: str, spec: Mapping[str, Json]) -> PriorityClass:
    """The class that `spec` of a PriorityClass declares."""
    patience = spec.get("patienceSeconds")
    return PriorityClass(
        name,
        rank=spec["rank"],
        aging_ms=None if spec.get("background", False) else spec.get("agingSeconds", _AGING_SECONDS) * 1000,
        patience_ms=None if patience is None else patience * 1000,
        preemptible=spec.get("preemptible", False),
        slots=spec.get("concurrency"),
        leave=spec.get("headroomPercent", 0),
    )
