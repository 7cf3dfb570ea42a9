"""Replay: every recorded history is reached again, byte for byte, and whatever was altered is found at its first event."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kernel_in_memory import InlineSpawner

from agentos.abi import event as ev
from agentos.abi.canonical import digest
from agentos.abi.chain import GENESIS
from agentos.abi.errors import ChainBroken
from agentos.abi.event import Event
from agentos.abi.record import header_of
from agentos.boot.system import LoopSpawner
from agentos.kernel.replay import read_history, replay
from agentos.projections.session import fold_all
from agentos.projections.state_document import digest_of_state

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
INDEX: dict[str, Any] = json.loads((GOLDEN / "index.json").read_text())
RIGHT = sorted(set(INDEX) - {"wrong"})


def history(name: str) -> list[Event]:
    return read_history(INDEX[name]["session"], (GOLDEN / f"{name}.jsonl").read_bytes().splitlines())


@pytest.mark.parametrize("name", RIGHT)
async def test_a_recorded_history_is_reached_again(name: str) -> None:
    """No model and no tool is called, every event is gone through, and the state is the one that was recorded."""
    again = await replay(history(name), InlineSpawner())
    assert again.difference is None
    assert (again.state, again.recorded) == (INDEX[name]["state"], INDEX[name]["state"])
    assert again.events == INDEX[name]["events"]


async def test_a_replay_takes_the_real_process() -> None:
    """The loop as it is started by a runtime comes to the same."""
    again = await replay(history("triage"), LoopSpawner())
    assert (again.difference, again.state) == (None, INDEX["triage"]["state"])


async def test_the_history_that_is_wrong_is_found() -> None:
    """Its chain is whole and its events are well formed; what was called is not what the model asked for."""
    again = await replay(history("wrong"), InlineSpawner())
    assert again.difference is not None
    assert (again.difference.seq, again.same) == (4, False)
    assert again.difference.recorded.startswith("call c1: write sha256:")
    assert again.difference.replayed.startswith("call c1: write sha256:")
    assert again.difference.recorded != again.difference.replayed


@pytest.mark.parametrize("name", RIGHT)
async def test_every_prefix_is_a_history(name: str) -> None:
    """A replay up to any event ends there, in the state of that event."""
    events = history(name)
    for end in range(1, len(events), 1 + len(events) // 12):
        again = await replay(events[:end], InlineSpawner())
        assert (again.difference, again.events) == (None, end)
        assert again.state == digest_of_state(fold_all(events[:end]))


def other_result(event: Event) -> Event | None:
    return replace(event, data={"result": "something else"}) if event.type == ev.SESSION_FINISHED else None


def other_turn(event: Event) -> Event | None:
    return replace(event, data={**event.data, "turn": 9}) if event.data.get("call") == "c1" and "turn" in event.data else None


def other_tool(event: Event) -> Event | None:
    return replace(event, data={**event.data, "tool": "send"}) if event.data.get("call") == "c1" else None


def other_model(event: Event) -> Event | None:
    if event.data.get("call") != "model-2" or "args" not in event.data:
        return None
    return replace(event, data={**event.data, "args": {"model": "m", "input_digest": GENESIS}})


@pytest.mark.parametrize(
    ("alter", "seq"),
    [(other_result, 13), (other_turn, 4), (other_tool, 4), (other_model, 11)],
    ids=["words", "turn", "tool", "view"],
)
async def test_what_is_altered_is_found_at_its_first_event(alter: Callable[[Event], Event | None], seq: int) -> None:
    """However the chain is made whole again."""
    altered: list[Event] = []
    heads: dict[str, str] = {}
    prev = GENESIS
    lines = (GOLDEN / "approval.jsonl").read_bytes().splitlines()
    for event, line in zip(history("approval"), lines, strict=True):
        now = replace(alter(event) or event, prev=prev)
        if now.data.get("tool") == "model-call" and now.data.get("args", {}).get("input_digest") in heads:
            shown = {**now.data["args"], "input_digest": heads[now.data["args"]["input_digest"]]}
            now = replace(now, data={**now.data, "args": shown})
        heads[digest(header_of(line))] = prev = digest(now.to_bytes())
        altered.append(now)
    again = await replay(altered, InlineSpawner())
    assert again.difference is not None
    assert again.difference.seq == seq


async def test_a_call_that_is_left_out_is_found() -> None:
    """The harness proposes it all the same."""
    events = [event for event in history("approval") if event.data.get("call") != "c1"]
    again = await replay(events, InlineSpawner())
    assert again.difference is not None
    assert again.difference.replayed.startswith("call c1: write")


def test_a_broken_chain_is_no_history() -> None:
    """It is refused before anything is replayed."""
    lines = (GOLDEN / "approval.jsonl").read_bytes().splitlines()
    with pytest.raises(ChainBroken, match=r"approval|dropped|edited"):
        read_history(INDEX["approval"]["session"], [lines[0], *lines[2:]])


async def test_replays_do_not_disturb_each_other() -> None:
    """Several at one time come to what each comes to alone."""
    found = await asyncio.gather(*(replay(history(name), InlineSpawner()) for name in RIGHT))
    assert [again.state for again in found] == [INDEX[name]["state"] for name in RIGHT]
