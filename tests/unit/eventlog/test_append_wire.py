"""What appends look like on the wire, read back by a parser of our own."""

from __future__ import annotations

import asyncio
import re

from hypothesis import given
from hypothesis import strategies as st

from agentos.eventlog import Message
from agentos.eventlog.adapters.append_wire import HEADER_ROOM, Append, batch_frames, single_headers

FRAME = re.compile(rb"HPUB (\S+) (\d+) (\d+)\r\n")
EXPECTED = "Nats-Expected-Last-Subject-Sequence"

appends = st.lists(
    st.tuples(st.integers(0, 10**12), st.lists(st.binary(max_size=40), min_size=1, max_size=5)), min_size=1, max_size=12
)


def made(plan: list[tuple[int, list[bytes]]]) -> list[Append]:
    loop = asyncio.new_event_loop()
    found = []
    for which, (after, datas) in enumerate(plan):
        messages = [Message(f"{which}-{number}", data) for number, data in enumerate(datas)]
        found.append(
            Append(
                f"ev.0.s-{which}", messages, [one.id for one in messages], after, 0.0, loop.create_future(), sum(map(len, datas))
            )
        )
    loop.close()
    return found


def parsed(data: bytes) -> list[tuple[str, dict[str, str], bytes]]:
    found = []
    while data:
        frame = FRAME.match(data)
        assert frame is not None
        head, whole = int(frame[2]), int(frame[3])
        body = data[frame.end() : frame.end() + whole]
        assert data[frame.end() + whole :].startswith(b"\r\n")
        data = data[frame.end() + whole + 2 :]
        version, *lines, end, rest = body[:head].decode("ascii").split("\r\n")
        assert (version, end, rest) == ("NATS/1.0", "", "")
        found.append((frame[1].decode("ascii"), dict(line.split(": ", 1) for line in lines), body[head:]))
    return found


@given(appends)
def test_a_batch_numbers_its_messages_and_expects_once_per_subject(plan):
    """All messages in order, counted from 1; the expected position on the first of each subject only; one commit, at the end."""
    group = made(plan)
    pieces, commit = batch_frames("batch-id", group)
    sent = [*parsed(b"".join(pieces)), (commit.subject, commit.headers, commit.data)]
    messages = [(append, message) for append in group for message in append.messages]
    assert [(subject, data) for subject, _, data in sent] == [(append.subject, message.data) for append, message in messages]
    for number, ((append, message), (_, headers, data)) in enumerate(zip(messages, sent, strict=True), start=1):
        wanted = {"Nats-Batch-Id": "batch-id", "Nats-Batch-Sequence": str(number), "Nats-Msg-Id": message.id}
        if message is append.messages[0]:
            wanted[EXPECTED] = str(append.after)
        if number == len(messages):
            wanted["Nats-Batch-Commit"] = "1"
        assert headers == wanted
        assert sum(len(name) + len(value) + 4 for name, value in headers.items()) + 12 < HEADER_ROOM + len(message.id)
        assert len(data) <= append.size


def test_a_message_of_its_own_has_an_id_and_an_expectation():
    """The headers of a plain publish."""
    assert single_headers(Message("e-1", b"{}"), 7) == {"Nats-Msg-Id": "e-1", EXPECTED: "7"}


def test_what_is_stored_is_taken_off_an_append():
    """The rest goes behind the last message that is stored."""
    (append,) = made([(5, [b"a", b"b", b"c"])])
    append.stored(2, 9)
    assert ([one.data for one in append.messages], append.ids, append.after) == ([b"c"], ["0-2"], 9)
