"""Manifests: YAML as operators write it, and JSON as clients send it.

What is accepted is accepted again, as the same resource, by the check that trusts no client; and a manifest that is JSON says the
same whether it is read as YAML or as JSON.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from fuzz_case import Broken, Target
from fuzz_strict import Ambiguous, clean_parse, same

from agentos.abi.canonical import NotCanonical, canonical, parse_strict
from agentos.abi.errors import ManifestError
from agentos.abi.resource import KINDS, Resource
from agentos.manifests.load import check_references, load, validate_resource


def files(data: bytes) -> str:
    """A file: it gives resources or faults, each fault says where, and what it gives passes the server's own check unchanged."""
    loaded = load(["-"], stdin=data)
    for fault in loaded.faults:
        str(fault)
        canonical(fault.to_dict())
        if fault.line > data.count(b"\n") + data.count(b"\r") + 2:
            raise Broken(f"a fault stands on line {fault.line}")
    for resource in loaded.resources:
        _accepted_again(resource)
    try:
        clean = clean_parse(data)
    except Ambiguous:
        clean = None
    if isinstance(clean, dict) and loaded.resources and not loaded.faults:
        _the_same(clean, loaded.resources)
    if loaded.faults:
        return "refused"
    return "taken" if loaded.resources else "nothing"


def _the_same(clean: dict[str, Any], resources: tuple[Resource, ...]) -> None:
    """JSON is YAML: whoever reads the file as JSON gets the same resource."""
    resource, faults = validate_resource(clean)
    spec = clean.get("spec")
    told = clean.get("kind") == "Policy" or (isinstance(spec, dict) and "scripted" in spec)
    if not told and (faults or [resource] != list(resources)):
        raise Broken(f"as YAML it is {resources}, as JSON {resource or faults}")


def _accepted_again(resource: Resource) -> None:
    body = resource.to_dict()
    again, faults = validate_resource(body)
    if again is None or faults:
        raise Broken(f"{resource.key} is accepted once, and refused then: {[str(fault) for fault in faults]}")
    if again != resource or canonical(again.to_dict()) != canonical(body):
        raise Broken(f"{resource.key} is another one when it is read again")


def sent(data: bytes) -> str:
    """Manifests that a client sends, one to a line: each is a resource or has faults, and together they hold or are refused."""
    found = []
    came = "refused"
    for line in data.split(b"\n")[:20]:
        try:
            body = parse_strict(line)
        except NotCanonical:
            continue
        if not same(body, clean_parse(line)):
            raise Broken(f"{body} was read, others read {clean_parse(line)}")
        resource, faults = validate_resource(body)
        if (resource is None) == (not faults):
            raise Broken(f"{resource} and {faults}")
        for fault in faults:
            canonical(fault.to_dict())
        if resource is not None:
            _accepted_again(resource)
            found.append(resource)
            came = "taken"
    try:
        check_references(found)
    except ManifestError as error:
        canonical(error.to_dict())
    return came


EXAMPLES: Final = Path(__file__).parents[2] / "examples"


def _examples() -> list[bytes]:
    """The short declarations of the examples, each one by itself."""
    whole = [part for path in sorted(EXAMPLES.glob("*/*.yaml")) for part in path.read_bytes().split(b"\n---\n")]
    return [part for part in whole if b"kind:" in part and len(part) < 1500]


def _lines() -> list[bytes]:
    """The same as a client sends them."""
    found = load(sorted(EXAMPLES.glob("*/desk.yaml"))).resources
    lines = [canonical(resource.to_dict()) for resource in found]
    return [b"\n".join(lines[at : at + 3]) for at in range(0, len(lines), 3)]


_WORDS: Final = (
    *(
        b"apiVersion: agentos/v1\n",
        b"kind: ",
        b"metadata:\n  name: ",
        b"spec:\n",
        b"---\n",
        b"...\n",
        b"&a ",
        b"*a",
        b"<<: ",
        b"!!str ",
    ),
    *(
        b"!!python/object:os.system ",
        b"? ",
        b"- ",
        b": ",
        b"|\n",
        b">-\n",
        b"0o17",
        b"1_000",
        b"1:30",
        b"yes",
        b"~",
        b".inf",
        b"%YAML 1.2\n",
    ),
    *(kind.encode() for kind in KINDS),
)

MANIFESTS: Final = (
    Target("manifests.files", files, 1200, _WORDS, made=_examples, longest=4096),
    Target(
        "manifests.sent",
        sent,
        1500,
        (b'"kind":', b'"spec":', b'"metadata":', *(f'"{kind}"'.encode() for kind in KINDS)),
        made=_lines,
    ),
)
