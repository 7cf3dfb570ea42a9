"""The pure parts of reading a stream."""

from __future__ import annotations

from agentos.eventlog import Stored
from agentos.eventlog.adapters.stream_reading import Page, _places


def test_positions_are_read_from_both_forms_of_reply():
    """The stream position and the delivery number stand in the reply subject, in its short and its long form."""
    assert _places("$JS.ACK.EV_0.tail-x.1.4711.12.1763700000000000000.3") == (4711, 12)
    assert _places("$JS.ACK.hub.ACC.EV_0.tail-x.1.4711.12.1763700000000000000.3.token") == (4711, 12)


def test_a_page_is_cut_at_a_position():
    """`until` keeps what is at or before a position, with its ids."""
    page = Page(tuple(Stored("ev.0.s", position, b"") for position in (3, 5, 9)), ("a", "b", "c"))
    assert page.until(9) is page
    assert page.until(5) == Page(page.messages[:2], ("a", "b"))
    assert page.until(2) == Page()
