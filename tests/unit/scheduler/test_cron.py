"""Schedules: the times they come to, also where the clocks are changed; and what is no schedule."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from agentos.scheduler.cron import Schedule, schedule


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def shown(times: list[int]) -> list[str]:
    return [datetime.fromtimestamp(time / 1000, UTC).strftime("%d %H:%M") for time in times]


@pytest.mark.parametrize(
    ("expression", "after", "times"),
    [
        # The clocks go forward at 01:00 UTC of the 29th: 02:30 is not there, and is the first moment that is.
        ("30 2 * * *", "2026-03-28T00:00:00Z", ["28 01:30", "29 01:00", "30 00:30"]),
        # They go back at 01:00 UTC of the 25th: of the two, the first counts.
        ("30 2 * * *", "2026-10-24T12:00:00Z", ["25 00:30", "26 01:30"]),
        # Somebody who begins in the second of the two hours has not missed it.
        ("30 2 * * *", "2026-10-25T01:10:00Z", ["26 01:30", "27 01:30"]),
        # A schedule by the time that passes goes through both.
        ("*/30 * * * *", "2026-10-25T00:10:00Z", ["25 00:30", "25 01:00", "25 01:30", "25 02:00"]),
        ("*/30 * * * *", "2026-03-29T00:40:00Z", ["29 01:00", "29 01:30"]),
    ],
)
def test_times_where_the_clocks_are_changed(expression: str, after: str, times: list[str]) -> None:
    made = schedule(expression, "Europe/Zurich")
    assert shown(made.upcoming(ms(after), len(times))) == times


def test_what_is_between_two_times_is_cut_to_the_newest() -> None:
    """Many times, of which a few are asked for: the newest, in order, and that there were more. Fast, however many there are."""
    made = schedule("* * * * *")
    until = ms("2026-11-21T12:00:30Z")
    assert (shown(made.between(0, until, most=2)[0]), made.between(0, until, most=2)[1]) == (["21 11:59", "21 12:00"], True)
    assert made.between(until - 30_000, until, most=5) == ([], False), "the cursor itself is not behind the cursor"
    assert made.between(until - 30_001, until, most=5) == ([until - 30_000], False)
    assert made.between(until, until - 3_600_000, most=5) == ([], False), "a clock that went back"


@settings(max_examples=200, deadline=None)
@given(
    minute=st.sampled_from(["0", "30", "*/7", "*", "59"]),
    hour=st.sampled_from(["*", "0", "2", "3", "*/5", "1,2,3"]),
    day=st.sampled_from(["*", "1", "29", "L"]),
    week=st.sampled_from(["*", "SUN", "MON-FRI", "0#1"]),
    zone=st.sampled_from(
        ["UTC", "Europe/Zurich", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Kathmandu"]
    ),
    begin=st.integers(ms("2025-01-01T00:00:00Z"), ms("2028-01-01T00:00:00Z")),
    cuts=st.lists(st.integers(0, 40 * 86_400), max_size=6),
)
def test_each_time_is_due_once_however_the_looks_fall(
    minute: str, hour: str, day: str, week: str, zone: str, begin: int, cuts: list[int]
) -> None:
    """Looked at in pieces, cut anywhere, a schedule has the times that it has in one piece: each once, and always later ones."""
    made = schedule(f"{minute} {hour} {day} * {week}", zone)
    ends = [begin + cut * 1000 for cut in sorted(cuts)]
    assume(ends)
    whole, _ = made.between(begin, ends[-1], most=1_000_000)
    pieces, cursor = [], begin
    for end in ends:
        found, more = made.between(cursor, end, most=1_000_000)
        assert not more
        pieces += found
        cursor = found[-1] if found else cursor
    assert pieces == whole
    assert all(begin < earlier < later for earlier, later in itertools.pairwise(whole))
    assert made.between(begin, ends[-1], most=3)[0] == whole[-3:]


@settings(max_examples=500, deadline=None)
@given(st.text(st.sampled_from("0123456789*,-/L#? MONFRIJAWx²\n"), max_size=40), st.text(max_size=20))
def test_whatever_is_written_is_a_schedule_or_refused_in_a_sentence(expression: str, zone: str) -> None:
    for text, where in ((expression, "UTC"), ("* * * * *", zone)):
        made: Schedule | str
        try:
            made = schedule(text, where)
        except ValueError as error:
            made = str(error)
        assert (made.after(0) is not None) if isinstance(made, Schedule) else (made and not made.endswith("."))


@pytest.mark.parametrize(
    ("expression", "zone", "sentence"),
    [
        ("0 7 * *", "UTC", "five fields"),
        ("0 0 7 * * *", "UTC", "five fields"),
        ("@daily", "UTC", "five fields"),
        ("61 * * * *", "UTC", "bad minute"),
        ("0 0 30 2 *", "UTC", "bad day-of-month"),
        ("0 7 * * *", "Europe/Zuerich", "no time zone"),
        ("0 7 * * *", "../../etc/localtime", "no time zone"),
        ("0 7 * * *", "Europe", "no time zone"),
    ],
)
def test_what_is_no_schedule_is_refused(expression: str, zone: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        schedule(expression, zone)
