"""What `agentos top` prints."""

from __future__ import annotations

import pytest
from syrupy.assertion import SnapshotAssertion

from agentos.cli.top import _print

BUSY = {
    "now": 1_000_000,
    "window_ms": 300_000,
    "endpoints": [
        {
            "kind": "model",
            "name": "default/large",
            "slots": 2,
            "circuit": "half-open",
            "requests": {"per_minute": 60, "left": 12},
            "tokens": {"per_minute": 90_000, "left": -400},
            "running": [
                {
                    "turn": "s-1/model-4",
                    "session": "s-1",
                    "path": ["acme", "desk", "triage"],
                    "class": "interactive",
                    "for_ms": 1_250,
                    "tokens": 900,
                },
            ],
            "running_others": 1,
            "queues": [
                {"class": "interactive", "waiting": 0, "oldest_ms": None, "admitted": 12, "p50_ms": 40, "p95_ms": 1_200},
                {"class": "batch", "waiting": 41, "oldest_ms": 310_000, "admitted": 0, "p50_ms": None, "p95_ms": None},
            ],
            "shares": [
                {
                    "class": "batch",
                    "path": ["acme"],
                    "weight": 3,
                    "waiting": 1,
                    "tokens": 300,
                    "deserved_permille": 750,
                    "received_permille": 751,
                },
                {
                    "class": "batch",
                    "path": ["(others)"],
                    "weight": 1,
                    "waiting": 40,
                    "tokens": 100,
                    "deserved_permille": 250,
                    "received_permille": 249,
                },
            ],
            "next": {
                "session": "s-2",
                "path": ["acme", "desk", "triage"],
                "class": "batch",
                "waited_ms": 310_000,
                "why": "acme/desk/triage is the furthest behind its share in class batch",
            },
        },
        {
            "kind": "tool",
            "name": "acme/crm",
            "slots": None,
            "circuit": "closed",
            "requests": None,
            "tokens": None,
            "running": [],
            "running_others": 0,
            "queues": [],
            "shares": [],
            "next": None,
        },
    ],
}


def test_endpoints_are_told_one_behind_the_other(capsys: pytest.CaptureFixture[str], snapshot: SnapshotAssertion) -> None:
    _print(BUSY)
    assert capsys.readouterr().out == snapshot


def test_only_the_longest_of_many_turns_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    run = BUSY["endpoints"][0]["running"][0]  # type: ignore[index]
    many = {**BUSY["endpoints"][0], "running": [{**run, "session": f"s-{n}", "for_ms": n} for n in range(30)]}  # type: ignore[index]
    _print({**BUSY, "endpoints": [many]})
    out = capsys.readouterr().out
    assert "s-29" in out
    assert "s-19" not in out.replace("s-1 ", "")
    assert "and 20 more turns: -o json" in out


def test_without_endpoints_it_says_what_to_declare(capsys: pytest.CaptureFixture[str]) -> None:
    _print({**BUSY, "endpoints": []})
    assert "declare a Model" in capsys.readouterr().err
