"""The mapping that shares what it can: it is a dict that nobody can change, whatever was made of it meanwhile."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentos.projections.grown import CHUNK, Grown

KEYS = st.sampled_from([f"k{number}" for number in range(9)])
STEPS = st.lists(st.tuples(st.integers(0, 30), KEYS, st.integers()), max_size=30)


@given(STEPS)
def test_every_version_is_the_dict_that_it_would_be(steps: list[tuple[int, str, int]]) -> None:
    """Grown from any earlier version, in any order: no line disturbs another one."""
    versions: list[tuple[Grown[int], dict[str, int]]] = [(Grown(), {})]
    for which, key, value in steps:
        grown, plain = versions[which % len(versions)]
        versions.append((grown.put(key, value), {**plain, key: value}))
    for grown, plain in versions:
        assert list(grown.items()) == list(plain.items())
        assert (list(grown), list(grown.values()), len(grown)) == (list(plain), list(plain.values()), len(plain))
        assert list(grown.newest_first()) == list(reversed(plain.values()))
        assert grown == plain
        for number in range(9):
            key = f"k{number}"
            assert (key in grown, grown.get(key)) == (key in plain, plain.get(key))


def test_it_keeps_order_over_many_chunks() -> None:
    """The ends of chunks are no seams, and a new value keeps the place of its key."""
    plain = {str(number): number for number in range(3 * CHUNK + 1)}
    grown: Grown[int] = Grown()
    for key, value in plain.items():
        grown = grown.put(key, value)
    changed = grown.put(str(CHUNK), -1).put(str(CHUNK - 1), -2)
    assert list(grown.items()) == list(plain.items()) == list(Grown(plain).items())
    assert list(changed.items()) == list((plain | {str(CHUNK): -1, str(CHUNK - 1): -2}).items())
