"""Words: what reaches a program is what was meant, and no value becomes an option."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentos.abi.canonical import Json
from agentos.abi.errors import DriverError
from agentos.drivers import words as module
from agentos.drivers.words import located, standard_input, words

GREP: list[Json] = ["grep", "-n", "--", {"arg": "pattern"}, {"arg": "paths"}]


@pytest.mark.parametrize(
    ("command", "args", "expected"),
    [
        (["true"], {}, ("true",)),
        (GREP, {"pattern": "-x", "paths": ["a", "-b"]}, ("grep", "-n", "--", "-x", "a", "-b")),
        (GREP, {"pattern": "a b; rm -rf $HOME `id` \"'\n"}, ("grep", "-n", "--", "a b; rm -rf $HOME `id` \"'\n")),
        (["p", {"arg": "n"}], {"n": 5}, ("p", "5")),
        (["p", {"arg": "n"}], {"n": 0.5}, ("p", "0.5")),
        (["p", {"arg": "n"}], {"n": False}, ("p", "false")),
        (["p", {"arg": "n"}], {"n": None}, ("p",)),
        (["p", {"arg": "n"}], {"n": []}, ("p",)),
        (["p", {"arg": "n"}], {"n": ""}, ("p", "")),
        (["p", {"arg": "v", "flag": "-v"}], {"v": True}, ("p", "-v")),
        (["p", {"arg": "v", "flag": "--all="}], {"v": True}, ("p", "--all")),
        (["p", {"arg": "v", "flag": "-v"}], {"v": False}, ("p",)),
        (["p", {"arg": "v", "flag": "-v"}], {}, ("p",)),
        (["p", {"arg": "e", "flag": "-e"}], {"e": ["a", "b"]}, ("p", "-e", "a", "-e", "b")),
        (["p", {"arg": "since", "flag": "--since="}], {"since": "-5 days"}, ("p", "--since=-5 days")),
        (["p", {"arg": "e", "flag": "--e="}], {"e": ["-a", ""]}, ("p", "--e=-a", "--e=")),
        (["p", "--", {"arg": "e", "flag": "-e"}], {"e": "-a"}, ("p", "--", "-e", "-a")),
    ],
)
def test_values_are_put_in_as_words(command: list[Json], args: dict[str, Json], expected: tuple[str, ...]) -> None:
    """Each value is one word, each element of a list one, nothing where nothing was given; flags go before or are joined."""
    assert words(command, args) == expected


@pytest.mark.parametrize("value", ["-rf", "--help", "-", "--", -5, ["fine", "-x"], "-\n"])
@pytest.mark.parametrize("word", [{"arg": "v"}, {"arg": "v", "flag": "-f"}])
def test_no_value_becomes_an_option(value: Json, word: Json) -> None:
    """What begins with a dash is refused in front of `--`, also as the value of a flag that stands apart."""
    with pytest.raises(DriverError, match="begins with `-`"):
        words(["p", word, "--", "end"], {"v": value})


def test_a_value_is_no_end_of_options() -> None:
    """Only the declaration's own `--` opens the way, never a value."""
    with pytest.raises(DriverError):
        words(["p", {"arg": "a"}, {"arg": "b"}], {"a": "--", "b": "-x"})
    with pytest.raises(DriverError):
        words(["p", {"arg": "a", "flag": "--"}, {"arg": "b"}], {"a": "x", "b": "-x"})


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("a\0b", "NUL"),
        ("\udc80", "not valid Unicode"),
        (["fine", "\ud800"], "not valid Unicode"),
        ({"a": 1}, "cannot be a word"),
        ([["nested"]], "cannot be a word"),
        ([None], "cannot be a word"),
        (float("nan"), "no number"),
        ("x" * (module.MAX_WORD + 1), "has at most"),
        (["x"] * module.MAX_WORDS, "at most 8192 can be given"),
        (["x" * 100_000] * 11, "at most 1048576 can be given"),
    ],
    ids=lambda value: str(value)[:20],
)
@pytest.mark.parametrize("flag", [{}, {"flag": "--f="}], ids=["bare", "joined"])
def test_what_cannot_be_a_word_is_refused(value: Json, said: str, flag: dict[str, Json]) -> None:
    """In words that name the argument or the bound, and never with a shortened or changed word."""
    with pytest.raises(DriverError, match=said):
        words(["p", {"arg": "v", **flag}], {"v": value})


@pytest.mark.parametrize("command", [[], [{"arg": "v"}]])
def test_the_program_is_never_an_argument(command: list[Json]) -> None:
    """Whatever a caller says, it does not choose what is started."""
    with pytest.raises(DriverError, match="first word"):
        words(command, {"v": "/bin/sh"})


@given(st.lists(st.text(alphabet=st.characters(), max_size=20), max_size=5))
@example(["-"])
def test_an_accepted_value_stands_unchanged_and_is_no_option(values: list[str]) -> None:
    """For any texts: either all of them are words as they are, and none begins with a dash, or the call is refused."""
    try:
        found = words(["p", {"arg": "v"}], {"v": values})
    except DriverError:
        assert any(value.startswith("-") or "\0" in value or not _encodes(value) for value in values)
    else:
        assert found == ("p", *values)
        assert not any(value.startswith("-") for value in values)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        (None, {"t": "x"}, None),
        ("t", {}, None),
        ("t", {"t": None}, None),
        ("t", {"t": ""}, b""),
        ("t", {"t": "é\0\n"}, "é\0\n".encode()),
        ("t", {"t": {"b": [1], "a": "x"}}, b'{"a":"x","b":[1]}'),
    ],
)
def test_standard_input(name: str | None, args: dict[str, Json], expected: bytes | None) -> None:
    """A text as it is, anything else as JSON."""
    assert standard_input(name, args) == expected


@pytest.mark.parametrize("value", ["\ud800", ["\ud800"]])
def test_standard_input_is_unicode(value: Json) -> None:
    """A lone surrogate has no bytes."""
    with pytest.raises(DriverError, match="not valid Unicode"):
        standard_input("t", {"t": value})


def test_paths_are_resolved_one_by_one() -> None:
    """Those that are named, lists too; the others stay; what is no path is refused."""
    args = {"a": "x", "b": ["y", "z"], "c": "x", "d": None}
    assert located(args, ["a", "b", "d", "e"], "/w/{}".format) == {"a": "/w/x", "b": ["/w/y", "/w/z"], "c": "x", "d": None}
    for wrong in (5, {"a": 1}, ["x", 5]):
        with pytest.raises(DriverError, match="must be a path"):
            located({"a": wrong}, ["a"], str)
