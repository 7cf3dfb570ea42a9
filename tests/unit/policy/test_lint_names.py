"""Typos, names that nothing reads, conflicts and obligations, in all the ways in which they can be written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentos.abi.obligation import KINDS
from agentos.policy.lint import lint, lint_tenant
from agentos.policy.port import Module
from agentos.policy.syntax import UNSTEADY

OPA = Path(sys.executable).with_name("opa")

HEAD = """# METADATA
# title: care
# description: a policy
# schemas:
#   - input: schema["policy-input"]
package agentos.syscall.rules.care

"""
RESULT = """# METADATA
# title: halt
# description: never
results contains {"rule": "care.halt", "effect": "deny", "reason": "no"} if """


def of(body: str, *, imports: str = "", rest: str = "") -> list[str]:
    """The findings of a policy with one rule, without their places and mends."""
    return told(HEAD + imports + RESULT + "{ " + body + " }\n\n" + rest + "\n")


def told(source: str, target: str = "syscall") -> list[str]:
    found = lint([Module("care.rego", source)], target=target)
    return [f"{one.code.removeprefix('policy.')}: {one.message}" for one in found]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ('s := input.syscall; s.tol == "x"', "input.syscall.tol"),
        ('s := input.syscall; t := s; t.tol == "x"', "input.syscall.tol"),
        ('s := input; s.sesion.id == "x"', "input.sesion"),
        ('s = input.syscall; s.tol == "x"', "input.syscall.tol"),
        ('some a in input.approvals; a.who == "x"', "input.approvals._.who"),
        ('some i, a in input.approvals; i > 0; a.who == "x"', "input.approvals._.who"),
        ('every a in input.approvals { a.who == "x" }', "input.approvals._.who"),
        ('count([a | some a in input.approvals; a.who == "x"]) > 0', "input.approvals._.who"),
        ("count({a: 1 | a := input.syscall.tol}) > 0", "input.syscall.tol"),
        ('k := "tol"; input.syscall[k] == "x"', "input.syscall.tol"),
        ('input["syscall"]["tol"] == "x"', "input.syscall.tol"),
        ('object.get(input.syscall, "tol", "") == "x"', "input.syscall.tol"),
        ('object.get(input, ["syscall", "tol"], "") == "x"', "input.syscall.tol"),
        ('s := input.syscall; object.get(s, "tol", "") == "x"', "input.syscall.tol"),
        ('s := object.get(input, "syscall", {}); s.tol == "x"', "input.syscall.tol"),
        ("input.now > 1 with input.sesion as {}", "input.sesion"),
        ("g := data.agentos.grants[input.agent.name]; g.x[0].aproval", "data.agentos.grants._.x.0.aproval"),
        ('sprintf("%s", [input.syscall.tol]) == "x"', "input.syscall.tol"),
        ('not input.syscall.tol == "x"', "input.syscall.tol"),
        ('$"{input.syscall.tol}" == "x"', "input.syscall.tol"),
    ],
)
def test_a_typo_is_found_through_every_alias(body: str, path: str) -> None:
    """A path that does not exist is told in full, however it is written."""
    head = path.partition(".")[0]
    assert f"{head}: {path} does not exist" in of(body)


def test_a_typo_is_found_through_imports_and_rules() -> None:
    """So it is behind an import, and behind a rule that is another name of a part of the input."""
    wrong = "input: input.syscall.tol does not exist"
    assert wrong in of('call.tol == "x"', imports="import input.syscall as call\n\n")
    assert wrong in of('call.tol == "x"', rest="call := input.syscall")
    assert "input: input.sycall does not exist" in of('call == "x"', imports="import input.sycall as call\n\n")
    assert wrong in of("f(1)", rest="f(x) if input.syscall.tol == x")


@pytest.mark.parametrize(
    "body",
    [
        "s := input.syscall.args; s.any.thing == 1",
        "some s in input.session.labels; s == input.syscall.tool",
        "every g in data.agentos.grants[input.agent.name][input.syscall.tool] { g.approval }",
        's := {"tol": 1}; s.tol == input.now',
        "input.syscall.args[input.agent.name].x == 1",
        'object.get(input.syscall.args, ["a", "b"], 0) == 1',
        "x := [y | some y in input.session.labels]; count(x) > 1",
        "x := 1; z := [x | x := input.now]; count(z) > x",
        "[a, _] := [input.now, 2]; a > 1",
    ],
)
def test_what_exists_is_let_be(body: str) -> None:
    """Arguments are open; a variable of another meaning is none of the input's business."""
    assert of(body) == []


STRICT = [
    ("y := 1", "y", True),
    ("count([1 | y := 2]) > 0", "y", True),
    ("y := 1; z := [y | y := 2]; count(z) > 0", "y", True),
    ("[y, z] := [1, 2]; y > 1", "z", True),
    ("every v in input.session.labels { z := v; count(v) > 1 }", "z", True),
    ("y := 1; y > 0", "y", False),
    ("y := 1; count([x | x := y]) > 0", "y", False),
    ("y := 1; not f(y)", "y", False),
]


@pytest.mark.parametrize(("body", "name", "unused"), STRICT)
def test_an_unused_variable_is_found_as_opa_finds_it(body: str, name: str, unused: bool, tmp_path: Path) -> None:
    """Ours and `opa check --strict` agree on what nothing reads, at any depth."""
    rest = "f(x) if x > 1"
    found = of(body, rest=rest)
    assert (f"unused: variable {name} is assigned and never read" in found) == unused
    file = tmp_path / "care.rego"
    file.write_text(HEAD + RESULT + "{ " + body + " }\n\n" + rest + "\n")
    done = subprocess.run([OPA, "check", "--strict", file], capture_output=True, text=True, check=False)
    assert (f"assigned var {name} unused" in done.stderr) == unused


def test_unused_arguments_and_imports_are_found() -> None:
    """What a function does not read, and what nobody reads of an import."""
    assert of("f(1, 2)", rest="f(a, b) := a") == ["unused: argument b is never read"]
    assert of("f(1, 2)", rest="f(a, _) := a") == []
    assert of("input.now > 1", imports="import data.agentos.tenant\n\n") == ["unused: import tenant is never read"]


@pytest.mark.parametrize("name", sorted(UNSTEADY))
def test_every_banned_builtin_is_refused(name: str) -> None:
    """One by one, also as a replacement of another."""
    assert any(text.startswith(f"builtin: {name} ") for text in of(f"x := {name}(1); x == 1"))
    assert any(text.startswith(f"builtin: {name} ") for text in of(f"count([1]) == 1 with count as {name}"))


@pytest.mark.parametrize(
    ("rules", "conflict"),
    [
        ("x := 1\n\nx := 2", True),
        ("default x := 1\n\ndefault x := 2", True),
        ("x := 1 if input.now > 1\n\nx := 2 if input.budget.calls > 1", True),
        ("x if input.now > 1\n\nx := false if input.budget.calls > 1", True),
        ("f(a) := 1 if a > 1\n\nf(a) := 2 if a > 2", True),
        ("x := input.now\n\nx := input.budget.calls", True),
        ('x := 1 if input.session.labels[_] == "a"\n\nx := 2 if input.session.labels[_] == "b"', True),
        ("x := 1 if input.now == 1\n\nx := 2 if input.now == 2", False),
        ("x := 1 if input.now < 1\n\nx := 2 if input.now >= 1", False),
        ("y if input.now > 1\n\nx := 1 if y\n\nx := 2 if not y", False),
        ("default x := 1\n\nx := 2 if input.now > 1", False),
        ("x if input.now > 1\n\nx if input.budget.calls > 1", False),
        ("x := 1 if {\n\tinput.now > 1\n} else := 2", False),
        ('f("a") := 1\n\nf("b") := 2', False),
        ("f(a) := 1 if a == 1\n\nf(b) := 2 if b == 2", False),
        ("x contains 1\n\nx contains 2", False),
        ("x[1] := 1\n\nx[2] := 2", False),
    ],
)
def test_a_complete_rule_has_one_value(rules: str, conflict: bool) -> None:
    """Two constants under conditions that can hold together are refused; exclusive ones, else and sets are not."""
    found = of("input.now > 1", rest=rules)
    assert any(text.startswith("conflict: ") for text in found) == conflict, found
    assert not [text for text in found if not text.startswith("conflict: ")]


def obliging(obligations: str, effect: str = "oblige") -> list[str]:
    body = RESULT.replace('"deny"', f'"{effect}"').replace('"reason": "no"}', f'"reason": "no", "obligations": {obligations}}}')
    return told(HEAD + body + "input.now > 1\n")


GOOD = {
    "redact": '{"kind": "redact", "in": "args", "path": "/a/*"}',
    "mask": '{"kind": "mask", "in": "result", "path": "/a", "keep": 4}',
    "cap": '{"kind": "cap", "path": "/amount", "maximum": 100}',
    "sandbox": '{"kind": "sandbox", "profile": "no-net"}',
    "label": '{"kind": "label", "labels": ["pii"]}',
    "rate": '{"kind": "rate", "name": "sends", "limit": 10, "seconds": 3600, "per": "agent"}',
    "approvers": '{"kind": "approvers", "count": 2}',
    "notify": '{"kind": "notify", "to": ["ops"], "text": "a call was made"}',
}


def test_every_kind_of_obligation_can_be_given() -> None:
    """Each with the fields that it has; computed values are left to the runtime."""
    assert set(GOOD) == set(KINDS) - {"uses"}
    for one in GOOD.values():
        assert obliging(f"[{one}]") == []
        assert obliging(f"[{one}]", "ask") == []
    assert obliging('[{"kind": "cap", "path": "/a", "maximum": input.now}]') == []
    assert obliging('[{"kind": input.agent.name}]') == []
    assert obliging('[o | o := {"kind": "nonsense"}]') == []


@pytest.mark.parametrize(
    ("obligations", "message"),
    [
        ("[]", "the effect is oblige, and there is no obligation"),
        ('{"kind": "redact"}', "the obligations are no array"),
        ('["redact"]', "an obligation is no object"),
        ('[{"path": "/a"}]', "an obligation has no kind"),
        ('[{"kind": "redcat"}]', 'an obligation of kind "redcat" is not one that a policy can give'),
        ('[{"kind": "uses", "grants": []}]', 'an obligation of kind "uses" is not one that a policy can give'),
        ('[{"kind": "cap", "path": "/a"}]', "an obligation cap has the fields kind, path"),
        ('[{"kind": "cap", "path": "a", "maximum": 1}]', "the field path of an obligation cap may not be this value"),
        ('[{"kind": "approvers", "count": 0}]', "the field count of an obligation approvers may not be this value"),
    ],
)
def test_an_obligation_that_the_runtime_would_not_know_is_refused(obligations: str, message: str) -> None:
    """Kinds, fields and values that are written out are held to the contract."""
    assert obliging(obligations) == [f"obligation: {message}"]


def test_oblige_needs_obligations() -> None:
    """The effect alone binds nobody to anything."""
    source = HEAD + RESULT.replace('"deny"', '"oblige"') + "input.now > 1\n"
    assert told(source) == ["obligation: the effect is oblige, and there is no obligation"]


def test_v0_is_refused_with_the_way_out() -> None:
    """Rego as it was written before version 1 does not parse; the finding says how it becomes what does."""
    found = lint([Module("old.rego", "package agentos.syscall.rules.old\n\nresults[x] { x := 1 }\n")], target="syscall")
    assert any("--v0-v1" in one.mend for one in found)


def approval(effect: str = "deny", schema: str = "approval-input", path: str = "input.approval.by") -> str:
    source = HEAD.replace("syscall", "approval").replace("policy-input", schema) + RESULT.replace('"deny"', f'"{effect}"')
    return source + f'{path} == "x"\n'


def test_an_approval_policy_has_its_own_input_and_effects() -> None:
    """It reads the approval's document, and answers with halt or deny."""
    assert told(approval(), "approval") == []
    assert told(approval("ask"), "approval") == ['result: the effect is "ask"']
    assert told(approval(path="input.syscall.tool"), "approval") == ["input: input.syscall does not exist"]
    assert [text.partition(":")[0] for text in told(approval(schema="policy-input"), "approval")] == ["schema"]


def test_a_schema_must_be_named_and_be_the_right_one() -> None:
    """Without one, or with one of its own, `opa check -s` would look at nothing."""
    none = (HEAD + RESULT + "input.now > 1\n").replace('# schemas:\n#   - input: schema["policy-input"]\n', "")
    assert [text.partition(":")[0] for text in told(none)] == ["schema"]
    own = HEAD.replace('schema["policy-input"]', "{type: object}") + RESULT + "input.now > 1\n"
    assert [text.partition(":")[0] for text in told(own)] == ["schema"]
    broken = HEAD.replace("# title: care", "# title: [care") + RESULT + "input.now > 1\n"
    assert "metadata" in {text.partition(":")[0] for text in told(broken)}


def test_names_are_shared_by_no_two_targets() -> None:
    """Mode, scope and parameters are kept by the last part of the package."""
    syscall, other = HEAD + RESULT + "input.now > 1\n", approval().replace("care.halt", "care.other")
    found = lint_tenant({"syscall": [Module("a.rego", syscall)], "approval": [Module("b.rego", other)]})
    assert [(one.path, one.message) for one in found] == [("b.rego", "a syscall policy has the name care already, in a.rego")]


def test_a_negated_alias_may_be_undefined_too() -> None:
    """A rule that is another name for a part of the input, without a default, is undefined where that is."""
    rest = "tool := input.syscall.tool"
    assert [text.partition(":")[0] for text in of('not startswith(tool, "x")', rest=rest)] == ["negation"]
    assert of('not startswith(tool, "x")', rest=f'default tool := ""\n\n{rest}') == []


PIECES = st.sampled_from(
    [
        "x", "y", "_", "1", '"a"', "input", "data", "input.a[x]", "[x, y]", '{"k": x}', "{x | x := y}", "[y | some y in x]",
        "x := ", "= ", "== ", "some ", "some x in ", "every x in input.a { x }", "not ", "; ", "\n\t", " if ", " else := ",
        "f(x) := ", "results contains ", "contains ", '{"rule": "care.a", "effect": x, "reason": y, "obligations": [z]}',
        "default ", "import data.", "object.get(x, [y], 1)", " with input as ", '$"a {x}"', "import input as ", "x.y[z].w",
        "# METADATA\n# title: [\n", "\n\n",
    ]
)  # fmt: skip


@settings(max_examples=250, deadline=None)
@given(st.lists(PIECES, max_size=14).map("".join))
def test_no_module_breaks_the_lint(text: str) -> None:
    """Whatever parses is judged, and whatever does not is told so; nothing is raised."""
    for finding in lint([Module("any.rego", HEAD + text)], target="syscall"):
        assert finding.line >= 1
        assert finding.column >= 1
