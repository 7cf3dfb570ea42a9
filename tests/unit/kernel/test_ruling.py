"""What comes of a decision that the runtime cannot do as it is obliged to."""

from __future__ import annotations

import pytest

from agentos.abi.decision import parse_decision
from agentos.kernel.ruling import Ruling


@pytest.mark.parametrize("effect", ["allow", "ask"])
def test_a_denial_of_the_runtime_rests_on_no_grant(effect: str) -> None:
    """The grants stay with what policy had said; the denial can be read again as what it is."""
    said = {"effect": effect, "rules": ["grants.allowed"], "reasons": ["as granted"], "grants": ["mails"]}
    policy = parse_decision(said)
    ruling = Ruling({}, "sha256:1", policy, policy).denied("sandbox", "there is no profile locked")
    assert ruling.policy.to_dict() == said
    assert ruling.decision.grants == ()
    assert parse_decision(ruling.decision.to_dict()) == ruling.decision
