"""Checkpoints: one text for one state, read in one way only, signed by a key while it was in use."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.abi.errors import EvidenceError
from agentos.audit.checkpoint import Checkpoint, Tree, open_checkpoint, origin_of, statement
from agentos.audit.keys import SigningKey
from agentos.audit.merkle import EMPTY, leaf_hash
from agentos.audit.note import sign_note
from agentos.audit.rotation import TrustedKey

KEY = SigningKey.from_seed(bytes(range(32)))
ORIGIN = origin_of("default", TrustedKey(KEY.public))
ROOT = base64.b64decode("CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=")
POINT = Checkpoint(ORIGIN, 812, ROOT, 1_795_000_000_125, {"EV_1": Tree(0, EMPTY), "EV_0": Tree(4711, ROOT)})


def test_the_text_is_a_checkpoint_as_others_know_it(snapshot) -> None:
    """Origin, size and root on the first three lines, as c2sp.org/tlog-checkpoint has it; then time and streams, sorted."""
    assert POINT.text() == snapshot
    assert POINT.statement() == "".join(POINT.text().splitlines(keepends=True)[3:]).encode()
    assert POINT.leaf() == leaf_hash(POINT.statement())
    assert POINT.tree("EV_0").size == 4711
    assert POINT.tree("EV_9") == Tree(0, EMPTY)


@given(
    st.integers(1, 10**15),
    st.integers(0, 10**13),
    st.dictionaries(st.from_regex(r"[A-Z][A-Z0-9_]{0,10}", fullmatch=True), st.integers(0, 10**15), max_size=5),
)
def test_what_is_written_is_read_back(number: int, time_ms: int, sizes: dict[str, int]) -> None:
    """Every checkpoint reads back to itself."""
    made = Checkpoint(ORIGIN, number, ROOT, time_ms, {name: Tree(size, ROOT) for name, size in sizes.items()})
    assert Checkpoint.parse(made.text()) == made
    assert Checkpoint.parse(made.text()).streams == made.streams
    assert statement(time_ms, made.streams) == made.statement()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (ORIGIN, "example.com/log"),
        (ORIGIN, ORIGIN + "/more"),
        ("\n812\n", "\n0812\n"),
        ("\n812\n", "\n0\n"),
        ("\n812\n", "\n-1\n"),
        ("CsUY", "CsU"),
        ("q2I=\ntime", "q2J=\ntime"),
        ("time ", "time  "),
        ("time ", "when "),
        (".125Z", "Z"),
        ("stream EV_0", "stream EV_1"),
        ("stream EV_0", "Stream EV_0"),
        ("4711", "04711"),
        ("4711 ", "4711  "),
    ],
)
def test_there_is_one_spelling(old: str, new: str) -> None:
    """Any other spelling of the same, and anything else, is refused: one checkpoint, one text."""
    text = POINT.text()
    assert old in text
    with pytest.raises(EvidenceError):
        Checkpoint.parse(text.replace(old, new, 1))
    for cut in (text[:-1], text + "\n", text.split("time")[0], ""):
        with pytest.raises(EvidenceError):
            Checkpoint.parse(cut)


def test_a_signature_counts_while_its_key_was_in_use() -> None:
    """A trusted key, under the checkpoint's own origin, at a time at which it was in use; else not."""
    note = sign_note(POINT.text(), ORIGIN, KEY)
    at = POINT.time_ms
    assert open_checkpoint(note, [TrustedKey(KEY.public)]) == POINT
    assert open_checkpoint(note.encode(), [TrustedKey(KEY.public, at, at)]) == POINT
    for key in (TrustedKey(KEY.public, at + 1), TrustedKey(KEY.public, None, at - 1)):
        with pytest.raises(EvidenceError, match="not in use"):
            open_checkpoint(note, [key])
    for foreign in (
        sign_note(POINT.text(), "agentos/other", KEY),
        sign_note(POINT.text(), ORIGIN, SigningKey.from_seed(bytes(32))),
    ):
        with pytest.raises(EvidenceError, match="not signed"):
            open_checkpoint(foreign, [TrustedKey(KEY.public)])
    with pytest.raises(EvidenceError, match="no checkpoint"):
        open_checkpoint(sign_note("another text\n", ORIGIN, KEY), [TrustedKey(KEY.public)])
