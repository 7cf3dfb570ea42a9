"""`agentos sched simulate`: faults have a place, and the table is what it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from agentos.abi.errors import ManifestError
from agentos.cli.sched import Format, Scheduler, load_workload, simulate

WORKLOAD = """\
seconds: 600
endpoints:
  - {name: large, slots: 2, tokensPerSecond: 50}
classes:
  - {name: interactive, rank: 10, patienceSeconds: 1}
  - {name: batch, aging: false, preemptible: true}
weights: {acme: 2}
budgets: {beta: {tokens: 9000}}
agents:
  - {tenant: acme, program: p, name: ask, class: interactive, endpoint: large, tokens: [50, 200], arrivals: {perMinute: 4},
     deadlineSeconds: 3}
  - {tenant: acme, program: p, name: index, count: 3, class: batch, endpoint: large, tokens: 300}
  - {tenant: beta, program: p, name: label, class: batch, endpoint: large, tokens: [100, 500]}
"""


def written(folder: Path, text: str = WORKLOAD) -> Path:
    path = folder / "workload.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("scheduler", list(Scheduler))
def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str], snapshot: SnapshotAssertion, scheduler: Scheduler) -> None:
    """What a person reads, which fits into eighty columns."""
    simulate(written(tmp_path), scheduler, None, Format.TABLE)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert out == snapshot


@pytest.mark.parametrize(
    ("old", "new", "place", "said"),
    [
        ("slots: 2", "slots: two", "3:26", "write a whole number"),
        ("slots: 2, ", "", "3:5", "write a whole number"),
        ("class: interactive", "class: urgent", "10:50", "one of batch, interactive"),
        ("count: 3", "cuont: 3", "12:45", "fields here"),
        ("{acme: 2}", "{acne: 2}", "7:11", "name a tenant"),
        ("{perMinute: 4}", "{perHour: 4}", "10:99", "number above 0"),
        ("{acme: 2}", "{acme: 2", "8:8", ""),
        (WORKLOAD, "", "", "seconds, endpoints"),
        (WORKLOAD, WORKLOAD + "---\nmore: 1\n", "", "seconds, endpoints"),
    ],
    ids=["type", "missing", "choice", "unknown", "path", "nested", "yaml", "empty", "two documents"],
)
def test_a_fault_has_a_place_and_a_mend(tmp_path: Path, old: str, new: str, place: str, said: str) -> None:
    """file:line:column of what is wrong, or of what lacks it."""
    path = written(tmp_path, WORKLOAD.replace(old, new))
    with pytest.raises(ManifestError) as caught:
        load_workload(path)
    assert caught.value.where == (f"{path}:{place}" if place else str(path))
    assert said in (caught.value.mend or "")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Is named."""
    with pytest.raises(ManifestError, match="no such file") as caught:
        load_workload(tmp_path / "none.yaml")
    assert caught.value.where == str(tmp_path / "none.yaml")
