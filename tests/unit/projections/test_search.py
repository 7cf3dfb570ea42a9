"""Full-text search: which words find what, and that no word of a user's is more than a word."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentos.abi import event as ev
from agentos.abi.errors import UsageError
from agentos.projections.search import Search, search
from agentos.projections.store import Store
from agentos.projections.text_store import TextStore


@pytest.fixture(scope="module")
def models(record, stream_of_sessions, tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    index, text = Store.open(folder / "a.db", tenant="default"), TextStore.open(folder / "a.text.db", tenant="default")
    chains = [record.busy_session("s-busy"), record.short_session("s-short")]
    loud = record.Chain("s-loud", now_ms=record.START_MS + 3_600_000)
    loud.created(agent="shouter")
    loud.decided(
        "c1", "send", "allow", {"to": "Zoë", "text": 'He said: "NEAR the \x02river\x03" AND left\nat noon', "amount": 4711}
    )
    loud.finished("c1", "send", "sent the letter to the river")
    loud.add(ev.SESSION_FINISHED, {"result": "the river " * 200})
    events = stream_of_sessions(*(chain.stored for chain in [*chains, loud]))
    for model in (index, text):
        model.apply(events)
    yield index, text
    index.close()
    text.close()


def hits(models, *words: str, **filters) -> list[str]:
    return [f"{row['session']}/{row['seq']}" for row in search(*models, Search(words, **filters)).rows]


WORDS = [
    (("inbox",), ["s-loud/1", "s-busy/1", "s-short/1"]),
    (("INBOX", "sort"), ["s-loud/1", "s-busy/1", "s-short/1"]),
    (("inb*",), ["s-loud/1", "s-busy/1", "s-short/1"]),
    (("inb",), []),
    (("sort the inbox",), ["s-loud/1", "s-busy/1", "s-short/1"]),
    (("inbox the sort",), []),
    (("report.md",), ["s-busy/10", "s-busy/7"]),
    (("looks", "right"), ["s-busy/9"]),
    (("zoe",), ["s-loud/2"]),
    (("4711",), ["s-loud/2"]),
    (("river",), ["s-loud/4", "s-loud/3", "s-loud/2"]),
    (("NEAR", "AND"), ["s-loud/2"]),
    (("noon",), ["s-loud/2"]),
    (("nowhere",), []),
]


@pytest.mark.parametrize(("words", "expected"), WORDS, ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_words_find_the_events_they_stand_in(models, words, expected):
    """All words, whole, in any order and case; phrases in theirs; beginnings with a star; newest first."""
    found = hits(models, *words)
    assert [one for one in found if one in expected] == found
    assert set(found) == set(expected)
    if "s-loud/1" in found:
        assert found[0] == "s-loud/1"


def test_filters_narrow(models, record):
    """By session, by the session's agent, by time, to so many, and it is said that there are more."""
    assert hits(models, "inbox", session="s-short") == ["s-short/1"]
    assert hits(models, "inbox", session="s-none") == []
    assert hits(models, "inbox", agent="clerk") == ["s-short/1"]
    assert hits(models, "inbox", since_ms=record.START_MS + 3_000_000) == ["s-loud/1"]
    assert hits(models, "inbox", since_ms=1 << 60) == []
    found = search(*models, Search(("river",), limit=2))
    assert (len(found.rows), found.more) == (2, True)
    assert not search(*models, Search(("river",), limit=3)).more


def test_a_hit_is_shown_where_it_stands(models):
    """The snippet marks the words that were found, and nothing in the text can pass for a mark."""
    (row,) = search(*models, Search(("said", "river"))).rows
    assert 'He «said»: "NEAR the  «river» " AND left' in row["snippet"]
    assert (row["agent"], row["call"], row["kind"], row["time"]) == ("shouter", "c1", "call", "2026-11-18T12:06:42.000Z")
    (long, *_) = search(*models, Search(("river",))).rows
    assert len(long["snippet"]) < 400


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.text(st.characters(blacklist_categories=["Cs"]), max_size=12), max_size=5))
def test_no_word_is_a_syntax_error(models, words):
    """Quotes, stars, parentheses, NUL, operators, nothing at all: an answer, or a sentence about how to ask."""
    if any(word.replace("\0", " ").strip() for word in words):
        search(*models, Search(tuple(words)))
    else:
        with pytest.raises(UsageError, match="say 1 to"):
            search(*models, Search(tuple(words)))


@pytest.mark.parametrize(
    "word", ['"', "'", "*", "a*b*", "(", "NOT", "AND", "words:x", "^a", "a-b", "-", "\x00", "a\x00b", "{x}:y", "+"]
)
def test_what_means_something_to_fts5_is_a_word(models, word):
    """None of it is understood as more than a word."""
    search(*models, Search((word, "river")))


def test_a_raw_query_is_the_engines_own(models):
    """OR, NOT and parentheses count; one that it does not understand is the user's mistake."""
    assert hits(models, "letter OR looks", raw=True) == ["s-loud/3", "s-busy/9"]
    assert hits(models, "river NOT letter", "NOT said", raw=True) == ["s-loud/4"]
    for query in ("river AND", '"', "nothing: x", "(a"):
        with pytest.raises(UsageError):
            hits(models, query, raw=True)


@pytest.mark.parametrize("words", [(), ("", " "), ("x",) * 33, ("x" * 2001,)], ids=["none", "blank", "too many", "too long"])
def test_there_must_be_words(models, words):
    """Nothing to look for, or too much, is said."""
    with pytest.raises(UsageError):
        search(*models, Search(words))
