"""`agentos budget`: amounts are printed as they are declared."""

from __future__ import annotations

import pytest

from agentos.cli.budget import _print, amount


@pytest.mark.parametrize(
    ("unit", "value", "printed"),
    [
        ("microdollars", 1_500_000, "1.5"),
        ("microdollars", 20, "0.00002"),
        ("milliseconds", 12_000, "12"),
        ("tokens", 1_234_567, "1,234,567"),
        ("calls", None, "-"),
    ],
)
def test_an_amount(unit: str, value: int | None, printed: str) -> None:
    """Dollars and seconds with their fractions, nothing rounded; no limit is a dash."""
    assert amount(unit, value) == printed


def test_a_row_says_whose_when_and_how_much(capsys: pytest.CaptureFixture[str]) -> None:
    """And an empty list says so, beside the data."""
    row = {"kind": "tenant", "name": "acme", "day": "2026-11-21", "unit": "microdollars"}
    _print({"tenant": "acme", "accounts": [{**row, "limit": 20_000_000, "used": 5, "reserved": 0, "left": 19_999_995}]})
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].lower().split() == ["account", "when", "unit", "limit", "used", "reserved", "left"]
    assert printed[1].split() == ["tenant", "acme", "2026-11-21", "dollars", "20", "0.000005", "0", "19.999995"]
    _print({"tenant": "acme", "accounts": []})
    said = capsys.readouterr()
    assert (said.out, said.err.strip()) == ("", "tenant acme has no budget, and has used nothing")


def test_who_used_what_is_shown_below_the_one_that_delegated(capsys: pytest.CaptureFixture[str]) -> None:
    """A session that is at work and has delegated nothing has its account, and needs no second table."""
    own, none = {"microdollars": 500_000}, dict[str, int]()
    parts = [
        {"session": "s-1", "depth": 0, "agent": "boss", "own": own, "total": {"microdollars": 1_500_000}, "reserved": none},
        {"session": "s-2", "depth": 1, "agent": "", "own": none, "total": {}, "reserved": none},
    ]
    accounts = [{"kind": "session", "name": "s-1", "day": None, "unit": "calls", "limit": 9, "used": 0, "reserved": 0, "left": 9}]
    _print({"tenant": "t", "accounts": accounts, "trees": [{"session": "s-1", "over": False, "whole": False, "parts": parts}]})
    said = capsys.readouterr()
    _, _, empty, headers, first, second = said.out.splitlines()
    assert (empty, headers.lower().split()[:3]) == ("", ["session", "agent", "unit"])
    assert first.split() == ["s-1", "boss", "dollars", "0.5", "1.5", "0"]
    assert second.startswith("  s-2")
    assert second.split() == ["s-2", "-", "calls", "0", "0", "0"]
    assert "more sessions below s-1" in said.err
    _print({"tenant": "t", "accounts": accounts, "trees": [{"session": "s-1", "over": False, "whole": True, "parts": parts[:1]}]})
    assert len(capsys.readouterr().out.splitlines()) == 2
