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
