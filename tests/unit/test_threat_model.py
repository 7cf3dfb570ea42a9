"""The threat model says nothing that is not there: its tests exist, its items are complete, its links lead somewhere."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from agentos.registry.principal import ROLES

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
NAMED: Final = re.compile(r"`([\w./-]+\.(?:py|rego))::(\w+)`")

AGENTIC: Final = (
    "ASI01 Agent Goal Hijack",
    "ASI02 Tool Misuse and Exploitation",
    "ASI03 Identity and Privilege Abuse",
    "ASI04 Agentic Supply Chain Vulnerabilities",
    "ASI05 Unexpected Code Execution (RCE)",
    "ASI06 Memory & Context Poisoning",
    "ASI07 Insecure Inter-Agent Communication",
    "ASI08 Cascading Failures",
    "ASI09 Human-Agent Trust Exploitation",
    "ASI10 Rogue Agents",
)
MCP: Final = (
    "MCP01:2025 Token Mismanagement & Secret Exposure",
    "MCP02:2025 Privilege Escalation via Scope Creep",
    "MCP03:2025 Tool Poisoning",
    "MCP04:2025 Software Supply Chain Attacks & Dependency Tampering",
    "MCP05:2025 Command Injection & Execution",
    "MCP06:2025 Intent Flow Subversion",
    "MCP07:2025 Insufficient Authentication & Authorization",
    "MCP08:2025 Lack of Audit and Telemetry",
    "MCP09:2025 Shadow MCP Servers",
    "MCP10:2025 Context Injection & Over-Sharing",
)
ACTORS: Final = (
    "model",
    "harness",
    "tool process",
    "MCP server",
    "web page, API",
    "file",
    "publisher, sender of webhooks",
    "client of MCP at the gateway",
    "tenant neighbour",
    "another user of the host",
    "whoever holds the disk or a backup",
)
PARTS: Final = ("Stops", "Rests on", "Shown by", "Weaker")


@cache
def collected(path: str) -> frozenset[str]:
    """The names of the tests in a file: of Python those that pytest collects, of Rego the rules called `test_…`."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.endswith(".rego"):
        return frozenset(re.findall(r"^(test_\w+) (?:if|:=)", text, flags=re.MULTILINE))
    tree = ast.parse(text, path)
    bodies = [tree.body, *(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name.startswith("Test"))]
    functions = (node for body in bodies for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in functions if node.name.startswith("test_"))


def sections(level: str) -> dict[str, str]:
    """The text below each heading of a level, by heading."""
    parts = re.split(rf"^{level} (.+)$", PAGE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], (re.split(r"^#+ ", text, flags=re.MULTILINE)[0] for text in parts[2::2]), strict=True))


def rows(heading: str) -> dict[str, list[str]]:
    """The rows of the one table below a heading, by their first cell; without its head."""
    below = next(text for name, text in sections("##").items() if name.startswith(heading))
    lines = [line for line in below.splitlines() if line.startswith("|")][2:]
    cells = [[cell.strip() for cell in line.strip().strip("|").split(" | ")] for line in lines]
    assert len({row[0] for row in cells}) == len(cells)
    return {row[0]: row[1:] for row in cells}


BOUNDARIES: Final = {name: text for name, text in sections("###").items() if re.match(r"B\d+ ", name)}


@pytest.mark.parametrize(("path", "name"), sorted(set(NAMED.findall(PAGE))), ids="::".join)
def test_every_test_that_is_named_exists(path: str, name: str) -> None:
    """A test that was renamed or removed leaves a claim without a proof."""
    assert path.startswith(("tests/", "policies/"))
    assert name in collected(path)


def test_whatever_looks_like_a_test_is_one() -> None:
    """No name of a test is written so that the check above would not see it."""
    assert PAGE.count("::test_") == len(NAMED.findall(PAGE))


@pytest.mark.parametrize(("heading", "items"), [("OWASP Top 10 for Agentic", AGENTIC), ("OWASP MCP Top 10", MCP)])
def test_every_item_has_a_mitigation_what_it_leaves_open_and_tests(heading: str, items: tuple[str, ...]) -> None:
    """Each item of both lists, in their order and under their names, and no other."""
    table = rows(heading)
    assert tuple(table) == items
    for item, (here, left, tests) in table.items():
        assert len(here.split()) > 5, item
        assert left, item
        assert NAMED.findall(tests), item


def test_boundaries_are_numbered_one_after_the_other() -> None:
    """So that a reference like B4 means one of them, and each that is made leads to one."""
    numbers = [int(name.split()[0][1:]) for name in BOUNDARIES]
    assert numbers == list(range(1, len(numbers) + 1))
    assert {int(number) for number in re.findall(r"\bB(\d+)\b", PAGE)} <= set(numbers)


@pytest.mark.parametrize("name", BOUNDARIES)
def test_every_boundary_names_mechanism_tests_and_weakness(name: str) -> None:
    """What it stops, on what it rests (a part of the code or a policy), what shows it, and where it is less than it seems."""
    told = dict(re.findall(r"^- \*\*([\w ]+):\*\* (.+)$", BOUNDARIES[name], flags=re.MULTILINE))
    assert tuple(told) == PARTS
    modules = re.findall(r"`([a-z_]+(?:[./][a-z_]+)*)", told["Rests on"])
    packages = {path.parent.name for path in (ROOT / "agentos").glob("*/__init__.py")} | {"policies"}
    assert any(re.split(r"[./]", module)[0] in packages for module in modules), "names no part of the code"
    assert NAMED.findall(told["Shown by"])
    assert len(told["Weaker"].split()) > 5


def test_modules_that_are_named_exist() -> None:
    """`kernel.gate`, `drivers.bounded`: a dotted name that begins with a room is a module of it, or something in one."""
    rooms = {path.parent.name for path in (ROOT / "agentos").glob("*/__init__.py")}
    for dotted in set(re.findall(r"`([a-z_]+(?:\.\w+)+)`", PAGE)):
        room, *parts = dotted.split(".")
        if room not in rooms:
            continue
        place = ROOT / "agentos" / room
        while parts and (place / parts[0]).is_dir():
            place = place / parts.pop(0)
        if not parts:
            continue
        module = place / f"{parts[0]}.py"
        assert module.is_file(), dotted
        assert all(re.search(rf"\b{part}\b", module.read_text(encoding="utf-8")) for part in parts[1:]), dotted


def test_every_actor_is_there() -> None:
    """Whoever touches the system is named, with what he has and what he is trusted with; each role of a principal too."""
    table = rows("Actors")
    assert set(ACTORS) <= set(table)
    told = " ".join(name for name in table if name.startswith("principal"))
    assert [role for role in ROLES if role != "publisher" and f"`{role}`" not in told] == []
    assert all(len(cells) == 2 and all(cells) for cells in table.values())


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)]+)\)", PAGE))))
def test_every_link_leads_somewhere(target: str) -> None:
    """Links to other pages are files of this repository."""
    assert not target.startswith(("http:", "https:")) or target.startswith("https://owasp.org/")
    assert (ROOT / "docs" / target.partition("#")[0]).is_file()
