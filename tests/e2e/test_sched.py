"""`agentos sched simulate` as an operator runs it: no runtime, the shipped workload within its bounds, rows that bear it out."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from e2e_runtime import ROOT, Cli
from jsonschema import Draft202012Validator

from agentos.manifests.compose import compose
from agentos.manifests.position import Text
from agentos.manifests.schema import flat_schema

WORKLOAD = ROOT / "examples" / "contention" / "workload.yaml"


def test_the_shipped_workload_meets_its_bounds(tmp_path: Path) -> None:
    """Shares, windows, lag, inversions, budgets; and the rows add up to what the report says, turn by turn."""
    rows = tmp_path / "rows.jsonl"
    cli = Cli(tmp_path / "no-home")
    done = cli("sched", "simulate", str(WORKLOAD), "-o", "json", "--rows", str(rows))
    shown = done.json
    assert shown["jain"] >= 0.99
    assert all(one["worst"] is None or one["worst"] >= 0.99 for one in shown["fairness"])
    assert all(one["lag"] <= one["bound"] for one in shown["fairness"])
    assert sum(one["worst"] is not None for one in shown["fairness"]) >= 8
    assert (shown["inversions"], shown["overdrafts"]) == (0, 0)
    assert shown["longest_inversion_ms"] <= shown["longest_lower_turn_ms"]
    got: Counter[tuple[str, str, str]] = Counter()
    turns = set()
    for line in rows.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        turns.add(row["turn"])
        names = row["path"].split("/")
        for depth in (1, 2, 3):
            got[row["endpoint"], row["class"], "/".join(names[:depth])] += row["tokens"]
    assert len(turns) == shown["turns"]["ended"] + shown["turns"]["stopped"]
    assert {(one["endpoint"], one["class"], one["path"]): one["received"] for one in shown["shares"] if one["received"]} == got
    assert not (tmp_path / "no-home").exists()


def test_the_shipped_workload_fits_its_schema() -> None:
    """What an editor says of it."""
    value = compose(Text("workload.yaml", WORKLOAD.read_text(encoding="utf-8"))).documents[0].value
    assert [error.message for error in Draft202012Validator(flat_schema("workload")).iter_errors(value)] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [("seconds: 0\n", "bad.yaml:1:10: error[manifest.invalid]"), ("a: [\n", "bad.yaml:"), ("", "one document")],
    ids=["field", "yaml", "empty"],
)
def test_what_is_wrong_has_a_place(tmp_path: Path, text: str, said: str) -> None:
    """On standard error, with a mend and exit code 1."""
    bad = tmp_path / "bad.yaml"
    bad.write_text(text, encoding="utf-8")
    done = Cli(tmp_path / "no-home")("sched", "simulate", str(bad), expect=1)
    assert done.out == ""
    assert said in done.err
    assert "mend: " in done.err
