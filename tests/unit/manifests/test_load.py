"""Files, folders and standard input become resources; references between files stay inside what was named."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos.abi.errors import EngineUnavailable, ManifestError
from agentos.abi.resource import Key
from agentos.manifests import Limits, Loaded, check_references, load, validate_resource

Read = Callable[..., Loaded]

MODEL = "apiVersion: agentos/v1\nkind: Model\nmetadata: {name: fast}\nspec: {provider: anthropic, anthropic: {model: m}}\n"
SCRIPTED = "apiVersion: agentos/v1\nkind: Model\nmetadata: {name: fast}\nspec: {provider: scripted, scripted: {playFile: %s}}\n"
PLAY = "rules: [{id: done, say: Finished.}]\n"
POLICY = "apiVersion: agentos/v1\nkind: Policy\nmetadata: {name: quiet}\nspec:\n  files: [%s]\n"
AGENT = (
    "apiVersion: agentos/v1\nkind: Agent\nmetadata: {name: triage}\nspec:\n  instructions: Sort.\n  model: fast\n"
    "  governance: {owner: support, purpose: Sort mail., risk: limited}\n"
)


def put(folder: Path, **files: str) -> Path:
    """Write files; `__` in a name is `/`, `_` before its ending is `.`."""
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def codes(loaded: Loaded) -> list[str]:
    return [fault.code for fault in loaded.faults]


def test_defaults_are_filled_in(read: Read) -> None:
    """A resource carries every default, so that nothing behind it needs to know them."""
    resource = read(MODEL + "---\n" + AGENT).resources[1]
    assert resource.key == Key("Agent", "default", "triage")
    assert resource.spec["budget"] == {"calls": 200, "tokens": 1_000_000}
    assert resource.spec["tools"] == []


def test_documents_come_in_the_order_of_need(read: Read) -> None:
    """Resources are sorted by kind, then by name, wherever they were written."""
    loaded = read(f"{AGENT}---\n{MODEL}---\n{MODEL.replace('fast', 'deep')}")
    assert [str(resource.key) for resource in loaded.resources] == [
        "model/default/deep",
        "model/default/fast",
        "agent/default/triage",
    ]


def test_folders_are_read_through(tmp_path: Path) -> None:
    """Both endings, all levels, sorted; hidden entries and other files are left out."""
    put(tmp_path, b_yaml=MODEL, a__c_yml=AGENT, notes_txt="x: [", a__d_json="[")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "bad.yaml").write_text("x: [")
    (tmp_path / ".bad.yaml").write_text("x: [")
    loaded = load([tmp_path])
    assert not loaded.faults
    assert loaded.files == 2
    assert len(loaded.resources) == 2


def test_a_file_that_is_named_twice_is_read_once(tmp_path: Path) -> None:
    """A path within another path that was given adds nothing."""
    put(tmp_path, a_yaml=MODEL)
    assert len(load([tmp_path, tmp_path / "a.yaml", str(tmp_path) + "/./a.yaml"]).resources) == 1


def test_standard_input_is_read_only_if_it_is_named(tmp_path: Path) -> None:
    """`-` is a stream or bytes; without it the stream is not touched."""
    put(tmp_path, a_yaml=MODEL)
    stream = io.BytesIO(AGENT.encode())
    assert codes(load(["-", tmp_path, "-"], stdin=stream)) == []
    assert codes(load([tmp_path], stdin=io.BytesIO(b"x: ["))) == []
    assert codes(load(["-"])) == ["file.empty"]


def test_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    """A byte order mark and CR LF change neither content nor places."""
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbf" + MODEL.replace("\n", "\r\n").encode())
    loaded = load([tmp_path])
    assert str(loaded.position(Key("Model", "default", "fast"), ("spec", "provider"))).endswith("a.yaml:4:18")


def test_places_of_what_was_loaded(tmp_path: Path) -> None:
    """A path of a resource has a place, in the file that holds it; a default stands where the nearest written part does."""
    put(tmp_path, a_yaml=MODEL + "---\n" + AGENT, m_yaml=SCRIPTED.replace("fast", "slow") % "p/play.txt", p__play_txt="\n" + PLAY)
    loaded = load([tmp_path])
    agent, model = Key("Agent", "default", "triage"), Key("Model", "default", "slow")
    assert str(loaded.position(agent, ("spec", "model"))) == f"{tmp_path}/a.yaml:11:10"
    assert str(loaded.position(agent, ("spec", "budget", "calls"))) == f"{tmp_path}/a.yaml:9:1"
    assert str(loaded.position(model, ("spec", "scripted", "play", "rules", 0, "say"))) == f"{tmp_path}/p/play.txt:2:25"
    assert loaded.position(Key("Agent", "default", "nobody")) is None
    assert str(loaded.positions[agent]) == f"{tmp_path}/a.yaml:6:1"


def test_a_referenced_file_is_no_stray(tmp_path: Path) -> None:
    """A YAML file without a kind is a fault, unless some manifest of the set refers to it."""
    put(tmp_path, m_yaml=SCRIPTED % "play.yaml", play_yaml=PLAY)
    loaded = load([tmp_path])
    assert not loaded.faults
    assert loaded.files == 2
    assert loaded.resources[0].spec["scripted"]["play"]["rules"][0] == {
        "id": "done",
        "when": "true",
        "let": {},
        "say": "Finished.",
        "call": [],
    }
    put(tmp_path, other_yaml=PLAY)
    assert codes(load([tmp_path])) == ["file.stray"]


@pytest.mark.parametrize(
    "reference", ["../play.txt", "/etc/hostname", "a/../../play.txt", "out.txt", "out/play.txt", ".", "nul\\0.txt", "none.txt"]
)
def test_references_stay_inside(tmp_path: Path, reference: str) -> None:
    """No reference reads a file outside the folder that was named: not by `..`, not absolute, not through a link."""
    put(tmp_path, in__m_yaml=SCRIPTED % f'"{reference}"', play_txt=PLAY)
    (tmp_path / "in" / "out.txt").symlink_to(tmp_path / "play.txt")
    (tmp_path / "in" / "out").symlink_to(tmp_path)
    loaded = load([tmp_path / "in" / "m.yaml"])
    assert codes(loaded)[0] in {"file.outside", "file.missing", "file.unreadable"}
    assert loaded.faults[0].line == 4
    assert not loaded.resources


def test_the_folder_that_was_named_is_the_boundary(tmp_path: Path) -> None:
    """A manifest may refer to a file above it, as long as that is below what was named."""
    put(tmp_path, in__m_yaml=SCRIPTED % "../play.txt", play_txt=PLAY)
    assert codes(load([tmp_path / "in"])) == ["file.outside"]
    assert codes(load([tmp_path])) == []


def test_links_in_folders(tmp_path: Path) -> None:
    """A link to a file inside is that file; a link out of the folder, to nothing or in a circle is told or passed over."""
    put(tmp_path, in__a_yaml=MODEL, out__b_yaml="x: [")
    (tmp_path / "in" / "b.yaml").symlink_to("a.yaml")
    (tmp_path / "in" / "circle").symlink_to(".")
    assert codes(load([tmp_path / "in"])) == []
    (tmp_path / "in" / "c.yaml").symlink_to("../out/b.yaml")
    (tmp_path / "in" / "d.yaml").symlink_to("nowhere")
    (tmp_path / "in" / "e").symlink_to("../out")
    assert codes(load([tmp_path / "in"])) == ["file.outside", "file.missing", "file.outside"]


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    """Missing, too large, not UTF-8, not a file: each a fault, and the rest is still read."""
    put(tmp_path, a_yaml=MODEL, big_yaml="a" * 200, folder__x_yaml="")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff")
    os.mkfifo(tmp_path / "pipe.yaml")
    loaded = load([tmp_path, tmp_path / "none"], limits=Limits(size=150))
    assert sorted(codes(loaded)) == ["file.encoding", "file.missing", "file.size"]
    assert len(loaded.resources) == 1


def test_what_exists_already_satisfies_references(read: Read) -> None:
    """A reference may lead to a resource that was applied before."""
    assert codes(read(AGENT)) == ["reference.unknown"]
    assert codes(read(AGENT, existing={Key("Model", "default", "fast")})) == []
    assert codes(read(AGENT, existing={Key("Model", "acme", "fast")})) == ["reference.unknown"]


def test_a_name_in_a_broken_document_is_not_called_unknown(read: Read) -> None:
    """What cannot be read has its own fault; references to it have none."""
    assert codes(read(f"{MODEL}  bad: [\n---\n{AGENT}")) == ["yaml.syntax"]
    assert codes(read(f"{MODEL.replace('Model', 'Modell')}---\n{AGENT}")) == ["manifest.kind"]


def test_modules_of_policies(tmp_path: Path) -> None:
    """Files, inline text and modules become the same form."""
    put(tmp_path, p_yaml=POLICY % "./r/a.rego", r__a_rego="package a\n")
    assert load([tmp_path]).resources[0].spec["modules"] == [{"path": "r/a.rego", "source": "package a\n"}]
    inline = POLICY.replace("files: [%s]", "rego: package b")
    resource = load(["-"], stdin=inline.encode()).resources[0]
    assert resource.spec == {"target": "syscall", "mode": "enforce", "modules": [{"path": "quiet.rego", "source": "package b"}]}
    assert validate_resource(resource.to_dict()) == (resource, [])


@pytest.mark.parametrize(
    ("style", "place"), [("|", (6, 11)), ("|2", (6, 11)), ("|1", (6, 11)), ("|-\n\n", (8, 11)), (">", (5, 9))]
)
def test_findings_in_inline_rego_have_places_in_the_yaml(
    read: Read, rego_check: Callable[..., object], style: str, place: tuple[int, int]
) -> None:
    """A finding in a literal block is given where it stands in the file; in other styles, where the text begins."""
    loaded = read(POLICY.replace("files: [%s]", f'rego: {style}\n    a "b" "c"'), check_policies=rego_check)
    assert [(fault.line, fault.column if place[0] > 5 else place[1]) for fault in loaded.faults] == [place]
    assert not loaded.resources


def test_rego_that_cannot_be_checked_is_not_sound(read: Read) -> None:
    """Without an engine a policy is at fault, and the reason is said once."""

    def nobody(_modules: object, _target: str) -> list[object]:
        raise EngineUnavailable("no policy engine is installed", mend="run make")

    loaded = read(POLICY.replace("files: [%s]", "rego: package b"), check_policies=nobody)
    assert [(fault.code, fault.mend) for fault in loaded.faults] == [("policy.unavailable", "run make")]
    assert not loaded.resources


def test_policies_are_checked_together_by_tenant_and_target(read: Read) -> None:
    """The check sees all modules of one tenant and target at once, as ids must be unique among them."""
    seen = []
    texts = [("a", "syscall", "default"), ("b", "syscall", "default"), ("c", "admission", "default"), ("d", "syscall", "acme")]
    form = "apiVersion: agentos/v1\nkind: Policy\nmetadata: {name: %s, tenant: %s}\nspec: {target: %s, rego: package x}\n"
    text = "---\n".join(form % (name, tenant, target) for name, target, tenant in texts)

    def look(modules: list[object], target: str) -> list[object]:
        seen.append((len(modules), target))
        return []

    read(text, check_policies=look, existing={Key("Tenant", "*", "acme")})
    assert sorted(seen) == [(1, "admission"), (1, "syscall"), (2, "syscall")]


@pytest.mark.parametrize(
    "body",
    [
        None,
        1,
        "x",
        [],
        {},
        {"kind": []},
        {"kind": "Agent"},
        {"kind": "Agent", "metadata": [], "spec": 1},
        {"kind": "Tool", "a": float("nan")},
        {"kind": "Agent", "metadata": {"name": "\ud800"}},
    ],
)
def test_whatever_a_client_sends_is_answered(body: object) -> None:
    """Any JSON value is a resource or faults, never an exception."""
    resource, faults = validate_resource(body)
    assert resource is None
    assert faults
    assert all(fault.line == 0 and not fault.file for fault in faults)


@pytest.mark.parametrize(
    ("kind", "spec"),
    [("Model", {"provider": "scripted", "scripted": {"playFile": "/etc/passwd"}}), ("Policy", {"files": ["/etc/passwd"]})],
)
def test_a_server_reads_no_file_for_a_client(kind: str, spec: dict[str, object]) -> None:
    """A manifest that came without a file cannot make the reader open one."""
    resource, faults = validate_resource({"apiVersion": "agentos/v1", "kind": kind, "metadata": {"name": "x"}, "spec": spec})
    assert resource is None
    assert [fault.code for fault in faults] == ["file.outside"]


def test_references_of_resources_without_files(read: Read) -> None:
    """A set of resources that does not hold together is refused with each fault."""
    resources = read(f"{MODEL}---\n{AGENT}").resources
    check_references(resources)
    with pytest.raises(ManifestError, match="there is no model") as caught:
        check_references(resources[1:])
    assert caught.value.faults[0]["code"] == "reference.unknown"


CLASSES = """apiVersion: agentos/v1
kind: Tenant
metadata: {name: acme}
spec: {models: [fast], priorityClasses: [nightly, standard]}
---
apiVersion: agentos/v1
kind: PriorityClass
metadata: {name: nightly}
spec: {rank: -50}
---
apiVersion: agentos/v1
kind: ModelClass
metadata: {name: any, tenant: acme}
spec: {routes: [{models: [fast]}]}
---
apiVersion: agentos/v1
kind: Agent
metadata: {name: report, tenant: acme}
spec:
  instructions: Report.
  model: any
  priorityClass: nightly
  governance: {owner: support, purpose: Sort mail., risk: limited}
"""


@pytest.mark.parametrize(
    ("gone", "where"),
    [
        ("model/default/fast", {"tenant/acme: spec.models[0]"}),
        ("priorityclass/*/nightly", {"tenant/acme: spec.priorityClasses[0]", "agent/report: spec.priorityClass"}),
        ("modelclass/acme/any", {"agent/report: spec.model"}),
    ],
)
def test_what_is_in_use_cannot_go(read: Read, gone: str, where: set[str]) -> None:
    """Models that are lent, classes of models and of turns: who uses one that is deleted is named; a lent model is there."""
    resources = read(f"{MODEL}---\n{CLASSES}").resources
    check_references(resources)
    with pytest.raises(ManifestError) as caught:
        check_references([one for one in resources if str(one.key) != gone])
    assert {str(fault["text"]).split(": there is no")[0] for fault in caught.value.faults} == where


def test_a_tenant_takes_a_lent_model_back_from_its_users(read: Read) -> None:
    """The list of a Tenant is what its agents and classes may name: without it, they name nothing."""
    resources = read(f"{MODEL}---\n{CLASSES}").resources
    taken = [replace(one, spec={"models": []}) if one.key.kind == "Tenant" else one for one in resources]
    with pytest.raises(ManifestError, match=r"modelclass/any: spec\.routes"):
        check_references(taken)


def test_built_in_classes_are_there(read: Read) -> None:
    """`interactive`, `standard` and `batch` need no declaration."""
    for name in ("interactive", "standard", "batch"):
        assert codes(read(f"{MODEL}---\n{AGENT}  priorityClass: {name}\n")) == []


names = st.from_regex(r"[a-z][a-z0-9-]{0,10}", fullmatch=True)


@given(st.lists(names, min_size=1, max_size=6, unique=True), st.data())
def test_resources_survive_a_round_trip(tools: list[str], data: st.DataObject) -> None:
    """A set that was loaded, written out again as manifests and loaded again is the same set."""
    import yaml

    bodies: list[dict[str, object]] = [
        {
            "kind": "Tool",
            "metadata": {"name": name},
            "spec": {
                "description": "d",
                "effect": data.draw(st.sampled_from(["read", "write"])),
                "driver": {"builtin": {"primitive": "read"}},
            },
        }
        for name in tools
        if name != "model-call"
    ]
    known = [body["metadata"]["name"] for body in bodies]  # type: ignore[index]
    bodies.append(
        {
            "kind": "Model",
            "metadata": {"name": "m"},
            "spec": {
                "provider": "anthropic",
                "anthropic": {"model": data.draw(st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=9))},
            },
        }
    )
    bodies.append(
        {
            "kind": "Agent",
            "metadata": {"name": "a", "labels": {"app": data.draw(names)}},
            "spec": {
                "instructions": "i",
                "model": "m",
                "tools": known,
                "governance": {"owner": "o", "purpose": "p", "risk": "high", "retentionDays": 183},
            },
        }
    )
    text = yaml.safe_dump_all([{"apiVersion": "agentos/v1", **body} for body in bodies], allow_unicode=True)
    first = load(["-"], stdin=text.encode())
    assert not first.faults
    again = load(
        ["-"], stdin=yaml.safe_dump_all([resource.to_dict() for resource in first.resources], allow_unicode=True).encode()
    )
    assert again.resources == first.resources
    assert [resource.digest() for resource in again.resources] == [resource.digest() for resource in first.resources]


@given(
    st.binary(max_size=300)
    | st.text(max_size=200).map(lambda text: f"apiVersion: agentos/v1\nkind: Agent\n{text}".encode("utf-8", "replace"))
)
def test_any_bytes_give_faults_or_resources(data: bytes) -> None:
    """Nothing that comes on standard input raises."""
    for fault in load(["-"], stdin=data).faults:
        assert "\n" not in str(fault)
