"""The same targets with cases of hypothesis: JSON of the right outline with odd values in it, and texts that are nearly right."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from fuzz_case import Watch
from fuzz_targets import TARGETS


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """What is refused is told to the log each time; nobody reads it here."""
    caplog.set_level(logging.CRITICAL, "agentos")


EXAMPLES: Final[Mapping[str, int]] = {
    "frames.serve": 500,
    "frames.control": 400,
    "frames.policy": 400,
    "frames.mcp": 300,
    "manifests.sent": 400,
    "events.session": 200,
    "events.record": 300,
}
"""How many cases of each target."""

ODD: Final[st.SearchStrategy[Any]] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["allow", "t1", "read", "s-1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def nearly(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A seed with odd values at a few places of its lines, spelled as JSON may be spelled."""
    lines = draw(st.sampled_from(seeds)).split(b"\n")
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        try:
            top = [json.loads(lines[at])]
        except ValueError:
            lines[at] = draw(st.binary(max_size=40)).replace(b"\n", b"")
            continue
        holder: Any = top
        key: Any = 0
        while isinstance(holder[key], dict | list) and holder[key] and draw(st.integers(0, 4)):
            holder = holder[key]
            key = draw(st.sampled_from(sorted(holder) if isinstance(holder, dict) else range(len(holder))))
        holder[key] = draw(ODD)
        if draw(st.booleans()):
            text = json.dumps(top[0], ensure_ascii=False, separators=(",", ":"), sort_keys=True)
        else:
            text = json.dumps(top[0], ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 0])))
        lines[at] = text.replace("\n", " ").encode("utf-8", "surrogatepass")
    return b"\n".join(lines)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", list(EXAMPLES))
def test_nothing_is_found(name: str, record_property: Any) -> None:
    """Whatever stands where, the same holds as for the guided cases."""
    watch = Watch(TARGETS[name])

    @settings(
        max_examples=EXAMPLES[name], derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(nearly(TARGETS[name].seeds()))
    def run(data: bytes) -> None:
        finding = watch.run(data)
        assert finding is None, str(finding)

    run()
    assert watch.cases >= EXAMPLES[name] * 0.9
    assert watch.came[TARGETS[name].taken], watch.came
    record_property("fuzzed cases", watch.cases)
