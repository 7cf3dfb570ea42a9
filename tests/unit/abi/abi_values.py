"""JSON values to draw from, in the range that has one meaning for every reader."""

from __future__ import annotations

from hypothesis import strategies as st

TEXT = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(["€", "𐀀", "\ue000", "דּ", "\u0000", "\u2028", '"\\'])
INTEGER = st.integers(-(2**53) + 1, 2**53 - 1)
FLOAT = (
    st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([-0.0, 1e21, 5e-324, 1e-6, 1e-7, 0.1, 1e23, 333333333.33333329, 1.7976931348623157e308, 4.5, 2e-3])
).filter(lambda value: not 2**53 <= abs(value) < 1e21)
SCALAR = st.none() | st.booleans() | INTEGER | FLOAT | TEXT
JSON = st.recursive(SCALAR, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=20)
