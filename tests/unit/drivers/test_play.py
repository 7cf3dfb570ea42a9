"""Plays: what rules say, and how a broken play is told."""

from __future__ import annotations

import copy

import pytest
from syrupy.assertion import SnapshotAssertion

from agentos.abi.canonical import Json
from agentos.abi.errors import DriverError
from agentos.drivers.adapters.play import Play, Turn, check_play

SCOPE: dict[str, Json] = {
    "goal": "triage the inbox",
    "turn": 3,
    "results": [
        {
            "tool": "list",
            "args": {"path": "in"},
            "call": "call-1-1",
            "content": "3 files",
            "data": [{"path": "in/b.md", "bytes": 5}, {"path": "in/a.csv", "bytes": 9}],
            "is_error": False,
        },
        {
            "tool": "read",
            "args": {"path": "in/b.md"},
            "call": "call-2-1",
            "content": "From: ann@example.org\nTo: bob@example.org\n",
            "data": None,
            "is_error": False,
        },
        {"tool": "read", "args": {"path": "in/x"}, "call": "call-2-2", "content": "no such file", "data": None, "is_error": True},
    ],
    "calls": [{"tool": "list", "args": {"path": "in"}, "call": "call-1-1"}],
    "said": ["I look.", "I read."],
    "tools": ["list", "read"],
}


def value(expression: str) -> Json:
    """What an expression gives as a native argument."""
    play = Play({"rules": [{"call": [{"tool": "t", "args": {"value": "{{ " + expression + " }}"}}]}]})
    return play.turn(copy.deepcopy(SCOPE)).calls[0][1]["value"]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("goal", "triage the inbox"),
        ("turn + 1", 4),
        ("results | length", 3),
        ("results | of_tool('read') | ok | map(attribute='args.path')", ["in/b.md"]),
        ("results | failed | map(attribute='content') | list", ["no such file"]),
        ("calls | of_tool('list') | length", 1),
        ("results[0].data | map(attribute='path') | sort", ["in/a.csv", "in/b.md"]),
        ("results[1].content | findall('[a-z]+@[a-z.]+')", ["ann@example.org", "bob@example.org"]),
        ("results[1].content | findall('(?m)^([A-Z][a-z]+): (.*)$')", [["From", "ann@example.org"], ["To", "bob@example.org"]]),
        ("results[1].content | search('bob')", True),
        ("results[1].content | search('^bob')", False),
        ("'[1, {\"a\": null}]' | fromjson", [1, {"a": None}]),
        ("'in/deep/a.tar.gz' | basename", "a.tar.gz"),
        ("'in/deep/a.tar.gz' | dirname", "in/deep"),
        ("'in/deep/a.md' | stem", "a"),
        ("'in/deep/a.md' | suffix", ".md"),
        ("{'a': {'b': 1}}", {"a": {"b": 1}}),
        ("results[0].data[0].items()", [["path", "in/b.md"], ["bytes", 5]]),
        ("none", None),
        ("said[-1] == 'I read.'", True),
        ("(1, 2)", [1, 2]),
    ],
)
def test_expressions(expression: str, expected: Json) -> None:
    """Variables and filters of the play language give these values, as JSON."""
    assert value(expression) == expected


def test_the_first_true_rule_speaks() -> None:
    """Rules are tried from the top; `let` of the play and of the rule are computed before `when`."""
    play = Play(
        {
            "name": "sample",
            "let": {"reads": "results | of_tool('read')", "count": "reads | length"},
            "rules": [
                {"id": "never", "let": {"many": "count > 2"}, "when": "many", "say": "no"},
                {"id": "yes", "let": {"first": "reads[0]"}, "when": "count == 2", "say": "{{ count }}: {{ first.args.path }}"},
                {"id": "late", "when": "true", "say": "no"},
            ],
        }
    )
    assert play.turn(SCOPE) == Turn("2: in/b.md", ())


def test_names_that_use_each_other_need_no_order() -> None:
    """A declaration comes back from the store with its fields sorted; the play says the same. One may still hide a variable."""
    let = {"zero": "turn - turn", "one": "zero + 1", "all": "[zero, one, goal]", "goal": "goal ~ '!'"}
    own = {"twice": "all + all", "again": "twice + all"}
    rule = {"say": "{{ again | join(' ') }}"}
    said = Play({"let": let, "rules": [{**rule, "let": own}]}).turn(SCOPE)
    assert said.text.startswith(f"0 1 {SCOPE['goal']}! 0 1")
    turned = {**rule, "let": dict(sorted(own.items()))}
    assert Play({"let": dict(sorted(let.items())), "rules": [turned]}).turn(SCOPE) == said


def test_a_filter_that_finds_nothing_is_false() -> None:
    """An empty selection is false, though Jinja gives it as a generator, which is always true."""
    play = Play({"rules": [{"when": "results | selectattr('tool', 'equalto', 'send')", "say": "sent"}, {"say": "not sent"}]})
    assert play.turn(SCOPE).text == "not sent"


def test_for_each() -> None:
    """One set of calls for each item, in order; nested arguments are templates or native values as they are written."""
    play = Play(
        {
            "rules": [
                {
                    "for_each": "results[0].data",
                    "call": [
                        {"tool": "read", "args": {"path": "{{ item.path }}"}},
                        {
                            "tool": "t",
                            "args": {"n": ["{{ item.bytes }}", {"text": "{{ item.bytes }} B"}], "flag": True, "no": None},
                        },
                    ],
                }
            ]
        }
    )
    assert play.turn(SCOPE).calls == (
        ("read", {"path": "in/b.md"}),
        ("t", {"n": [5, {"text": "5 B"}], "flag": True, "no": None}),
        ("read", {"path": "in/a.csv"}),
        ("t", {"n": [9, {"text": "9 B"}], "flag": True, "no": None}),
    )


def test_nothing_to_say() -> None:
    """Without a rule that fires the play ends with a sentence; so does a rule that proposes and says nothing."""
    assert Play({"rules": [{"when": "false", "say": "x"}]}).turn(SCOPE) == Turn("the play has nothing more to say", ())
    empty = Play({"rules": [{"id": "read", "for_each": "[]", "call": [{"tool": "read"}]}]})
    assert empty.turn(SCOPE) == Turn("rule read of the play has nothing to do", ())


def test_a_turn_leaves_its_scope_alone() -> None:
    """Computing a turn changes nothing: the same again gives the same."""
    play = Play(
        {"let": {"goal": "goal ~ '!'"}, "rules": [{"say": "{{ goal }}", "call": [{"tool": "t", "args": {"r": "{{ results }}"}}]}]}
    )
    scope = copy.deepcopy(SCOPE)
    assert play.turn(scope) == play.turn(scope)
    assert scope == SCOPE


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("results[9].content", "no element 9|has no element"),
        ("goal.nothing", "no attribute"),
        ("1 // 0", "zero"),
        ("goal.__class__.__mro__", "unsafe|has no attribute"),
        ("'a' * 10000000", "longer than"),
        ("[0] * 10000000", "longer than"),
        ("9 ** 9999", "too large"),
        ("range(1000000)", "too big"),
        ("goal | findall('x' * 201)", "at most 200"),
        ("goal | findall('(a+)+$')", "has no bound"),
        ("goal | search('(')", "not a regular expression"),
        ("'{' | fromjson", "Expecting"),
        ("goal.upper", "not a JSON value"),
    ],
)
def test_failures_name_their_rule(expression: str, words: str) -> None:
    """What goes wrong in a turn is an error that names the rule; nothing escapes the sandbox."""
    play = Play({"rules": [{"id": "r", "say": "x", "call": [{"tool": "t", "args": {"value": "{{ " + expression + " }}"}}]}]})
    with pytest.raises(DriverError, match=words) as caught:
        play.turn(SCOPE)
    assert caught.value.where == "play, rule r"


def test_too_many_calls() -> None:
    """A turn proposes a bounded number of calls, and `for_each` wants a list."""
    with pytest.raises(DriverError, match="proposes 201 calls"):
        Play({"rules": [{"for_each": "range(201)", "call": [{"tool": "t"}]}]}).turn(SCOPE)
    with pytest.raises(DriverError, match="must give a list"):
        Play({"rules": [{"for_each": "turn", "call": [{"tool": "t"}]}]}).turn(SCOPE)


BROKEN: dict[str, Json] = {
    "name": "broken",
    "sceen": 1,
    "let": {"2x": "1", "good": "turn", "bad": "1 +", "one": "other", "other": "one"},
    "rules": [
        "not a rule",
        {"when": "results | lenght", "say": "{{ goal", "call": {"tool": "t"}},
        {
            "when": 3,
            "say": ["x"],
            "for_each": "good",
            "call": [{"tool": "t", "args": {"a": ["{{ item }}", "{{ itm }}"]}, "arg": 1}],
        },
        {"say": "{{ item }}", "call": [{"args": []}, {"tool": "t", "args": {"x": "{{ 1 | nofilter }}"}}]},
        {"say": "{% for x in results %}{{ x.tool }}{{ loop.index }}{% endfor %} {{ range(3) }}"},
        {"when": "1 }} {{ 2"},
    ],
}


def test_what_can_be_seen_before_it_runs(snapshot: SnapshotAssertion) -> None:
    """`check_play` tells every fault with its place."""
    text = "\n".join(f"{'.'.join(map(str, path)) or '(top)'}: {message}" for path, message in check_play(BROKEN))
    assert text == snapshot


@pytest.mark.parametrize("play", [None, [], "x", {}, {"rules": []}, {"rules": {}}, {"rules": [{}], "let": []}])
def test_shapes(play: Json) -> None:
    """What is not a play has a fault, and cannot be played; the check itself never fails."""
    assert check_play(play)
    with pytest.raises(DriverError, match="the play is broken"):
        Play(play)


def test_a_good_play_has_no_fault() -> None:
    """The smallest play is whole."""
    assert check_play({"rules": [{"say": "hello"}]}) == []
