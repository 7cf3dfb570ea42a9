"""Label selectors."""

from __future__ import annotations

import pytest

from agentos.abi.errors import UsageError
from agentos.registry.selector import Selector


def test_all_labels_must_match() -> None:
    """A selector matches what carries each of its labels."""
    selector = Selector.parse(" team=x , stage=prod")
    assert selector.matches({"team": "x", "stage": "prod", "more": "1"})
    assert not selector.matches({"team": "x"})
    assert str(selector) == "stage=prod,team=x"


@pytest.mark.parametrize("text", ["", ",", "team", "=x", "team!=x", "team==x", "a=1,a=2", "a=1,"])
def test_anything_else_is_refused(text: str) -> None:
    """An empty or odd selector is refused, so that prune never means everything."""
    with pytest.raises(UsageError, match="label selector"):
        Selector.parse(text)
