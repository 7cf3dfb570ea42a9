"""The bound of a request is never below what a provider counts of its text, and near it once the provider has counted before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agentos.abi.canonical import Json
from agentos.drivers.port import ModelRequest, ModelSpec
from agentos.kernel.counted import Counted, Sized

MODEL = ModelSpec("m", "anthropic", {"model": "x"})
KEY = ("t", "s")


def request(*texts: str, system: str = "you help", beginning: str = "") -> ModelRequest:
    messages = [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(texts)]
    return ModelRequest(system, messages, [{"name": "read", "description": "reads", "input_schema": {}}], None, beginning)


def texts_of(value: Json) -> list[str]:
    """Every text in a request."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for one in value.values() for text in texts_of(one)]
    return [text for one in value for text in texts_of(one)] if isinstance(value, Sequence) else []


def worst(asked: ModelRequest) -> int:
    """A provider whose tokens are single bytes, and which marks each message with four more."""
    texts = [asked.system, asked.beginning, *texts_of(list(asked.messages)), *texts_of(list(asked.tools))]
    return sum(len(text.encode()) for text in texts) + 4 * len(asked.messages)


def test_without_a_count_every_byte_is_a_token() -> None:
    """And what the provider puts around it is added."""
    asked = request("hello")
    assert worst(asked) <= Counted().most(KEY, Sized(MODEL, asked)) == Counted().most(KEY, Sized(MODEL, asked), 100) - 100


def test_what_was_counted_stands_for_what_it_was_counted_of() -> None:
    """What has come since is a token for each byte; another session, model or beginning is not what was counted."""
    counted, first, long = Counted(), request("x" * 10_000), request("x" * 10_000, "yes", "go on")
    counted.counted(KEY, Sized(MODEL, first), 2500)
    most = counted.most(KEY, Sized(MODEL, long), 100)
    assert 2500 + len("yes") + len("go on") <= most < 2700
    others = (
        (("t", "other"), MODEL, long),
        (KEY, replace(MODEL, settings={"model": "y"}), long),
        (KEY, MODEL, replace(long, system="you harm")),
        (KEY, MODEL, replace(long, tools=[])),
        (KEY, MODEL, request("y" * 10_000, "yes", "go on")),
        (KEY, MODEL, request()),
    )
    for key, model, asked in others:
        assert counted.most(key, Sized(model, asked)) == Counted().most(key, Sized(model, asked))


def test_of_an_answer_that_had_begun_nothing_is_kept() -> None:
    """Its beginning is counted with it, and is no message later on."""
    counted, asked = Counted(), request("x" * 1000)
    counted.counted(KEY, Sized(MODEL, asked), 250)
    counted.counted(KEY, Sized(MODEL, replace(asked, beginning="yes")), 251)
    assert counted.most(KEY, Sized(MODEL, asked)) > 1000


def test_only_so_many_sessions_are_kept() -> None:
    """The one that was counted longest ago is forgotten, and the bytes count for it again."""
    counted, asked = Counted(kept=2), request("x" * 1000)
    for name in ("a", "b", "a", "c"):
        counted.counted(("t", name), Sized(MODEL, asked), 10)
    assert [counted.most(("t", name), Sized(MODEL, asked)) < 1000 for name in ("a", "b", "c")] == [True, False, True]


@given(
    texts=st.lists(st.text(max_size=40), min_size=1, max_size=12),
    changes=st.lists(st.tuples(st.integers(0, 11), st.text(max_size=9)), max_size=4),
    merges=st.integers(1, 4),
    data=st.data(),
)
def test_no_text_has_more_tokens_than_the_bound(texts: list[str], changes: Any, merges: int, data: st.DataObject) -> None:
    """Over a conversation that grows, or whose past is another one later, of a tokenizer of any dictionary: its tokens have one
    byte or several, each message is tokenized by itself."""

    def tokens(text: str) -> int:
        return -(-len(text.encode()) // merges)

    def provider(asked: ModelRequest) -> int:
        spoken = [asked.system, asked.beginning, *texts_of(list(asked.messages)), *texts_of(list(asked.tools))]
        return sum(map(tokens, spoken)) + 4 * len(asked.messages)

    counted, now = Counted(), list(texts)
    for length in range(1, len(texts) + 1):
        for place, text in changes:
            if data.draw(st.booleans()) and place < length:
                now[place] = text
        asked = request(*now[:length], beginning=data.draw(st.sampled_from(("", "so"))))
        sized = Sized(MODEL, asked)
        assert provider(asked) <= counted.most(KEY, sized)
        counted.counted(KEY, sized, provider(asked))
