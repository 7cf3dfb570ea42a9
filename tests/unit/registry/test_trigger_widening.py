"""What a change of a Trigger permits: runs that nobody asks for."""

from __future__ import annotations

from typing import Any

import pytest

from agentos.abi.resource import Key, Resource
from agentos.registry.widening import widens

CRON = {"cron": {"schedule": "0 7 * * *"}}
BASE: dict[str, Any] = {"agent": "a", "goal": "g", "on": CRON, "labels": ["internal"]}


def trigger(**spec: Any) -> Resource:
    return Resource(Key("Trigger", "default", "t"), {}, {}, {**BASE, **spec})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"agent": "b"}, "starts runs of b instead of a"),
        ({"goal": "other"}, "gives a another goal"),
        ({"on": {"signal": {"name": "go"}}}, 'starts runs on signal {"name": "go"} instead of cron {"schedule": "0 7 * * *"}'),
        ({"labels": []}, "its runs begin without the labels internal"),
        ({"overlap": "allow"}, "starts runs beside those that are not over"),
    ],
)
def test_a_trigger_that_starts_more_than_before_is_wider(change: dict[str, Any], sentence: str) -> None:
    assert widens(trigger(), trigger(**change)) == (f"trigger/default/t: {sentence}",)


def test_a_new_trigger_is_wider_and_one_that_goes_is_not() -> None:
    (sentence,) = widens(None, trigger())
    assert sentence.startswith("trigger/default/t: starts runs of a by itself, on cron")
    assert widens(trigger(), None) == ()
    assert widens(trigger(), trigger(description="said otherwise")) == ()
    assert widens(trigger(), trigger(labels=["internal", "more"])) == ()
    daemon = Resource(Key("Trigger", "default", "t"), {}, {}, {"daemon": "strays", "on": CRON})
    assert widens(None, daemon) == ()
