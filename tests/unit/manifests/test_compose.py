"""Documents are put together with a place for every part, under limits that hold while the text is read."""

from __future__ import annotations

import json
import re
import time

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from agentos.abi.canonical import Json
from agentos.manifests.compose import Limits, Reading, compose
from agentos.manifests.position import Text, find


def read(text: str, **limits: int) -> Reading:
    return compose(Text("t.yaml", text), Limits(**limits))


def place(text: str, *path: str | int, key: bool = False) -> tuple[int, int]:
    mark = find(read(text).documents[0].mark, path, key=key)
    return mark[0], mark[1]


def test_every_part_has_a_place() -> None:
    """Line and column, from 1, of each key and each value, in block and in flow style."""
    text = "# c\na:\n  - x\n  - {b: 1, é: 2}\nd: |\n  text\n"
    assert place(text) == (2, 1)
    assert place(text, "a", key=True) == (2, 1)
    assert place(text, "a") == (3, 3)
    assert place(text, "a", 1, "b", key=True) == (4, 6)
    assert place(text, "a", 1, "b") == (4, 9)
    assert place(text, "a", 1, "é") == (4, 15)
    assert place(text, "d") == (5, 4)


def test_a_part_that_is_not_there_stands_where_it_would() -> None:
    """The place of a missing field is that of the key that lacks it."""
    text = "a:\n  b: 1\n"
    assert place(text, "a", "c") == (1, 1)
    assert place(text, "z", "c") == (1, 1)
    assert place(text, "a", "b", "c") == (2, 3)


def test_places_of_later_documents_are_places_in_the_file() -> None:
    """Lines are counted through the whole file, also behind a document that could not be read."""
    reading = read("a: 1\n---\nb: [\n---\nc: 3\n---\nd: {\n---\ne: 5\n")
    assert [document.value for document in reading.documents] == [{"a": 1}, {"c": 3}, {"e": 5}]
    assert [document.mark[0] for document in reading.documents] == [1, 5, 9]
    assert len(reading.flaws) == 2


def test_an_alias_stands_where_its_anchor_is() -> None:
    """What is wrong with an aliased value is mended at the anchor."""
    assert place("a: &x {b: 1}\nc: *x\n", "c", "b") == (1, 11)


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? ", "[{a: "])
def test_depth_is_refused_before_it_costs_anything(opening: str) -> None:
    """200 KB of brackets neither exhaust the stack nor take long."""
    begun = time.process_time()
    reading = read(opening * (200_000 // len(opening)))
    assert reading.flaws
    assert time.process_time() - begun < 5


def test_depth_through_aliases_is_depth() -> None:
    """A chain of aliases cannot nest deeper than brackets may."""
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 200))]
    flaws = read("\n".join(lines)).flaws
    assert flaws[0].code == "yaml.depth"
    assert flaws[0].mark[0] == 100


def test_an_alias_bomb_is_refused_at_the_limit() -> None:
    """What aliases stand for is counted before it is built."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    assert read("\n".join(lines)).flaws[0].code == "yaml.alias"
    assert read(f"a: &a {'x' * 1000}\nb: [*a, *a]\n", expansion=1500).flaws[0].code == "yaml.alias"
    assert not read(f"a: &a {'x' * 1000}\nb: [*a]\n", expansion=1500).flaws


def test_syntax_errors_are_counted_only_so_far() -> None:
    """A file of nothing but errors is given up after some of them."""
    assert len(read("---\n[\n" * 10_000).flaws) == Limits().restarts


def test_a_key_that_is_dropped_does_not_shift_the_others() -> None:
    """After a key that is refused, its value is left out and the next key is a key."""
    reading = read("1: x\n[a]: y\n<<: {z: 1}\nb: 2\nb: 3\nc: 4\n")
    assert reading.documents[0].value == {"b": 2, "c": 4}
    assert [flaw.mark[0] for flaw in reading.flaws] == [1, 2, 3, 5]
    assert not reading.documents[0].whole


@pytest.mark.parametrize("text", ["{?x: 1}", "[?x : 1]", "a: &x:y 1", 'a: "b"#c', "[a]#c", "[-]", "a: 1\n%YAML 1.2\n---\nb: 2\n"])
def test_what_libyaml_reads_and_yaml_refuses(text: str) -> None:
    """Text that other parsers refuse or read as something else is refused."""
    assert read(text).flaws


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs", "Cc", "Co", "Cn"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs", "Cc", "Co", "Cn"]), max_size=10), inner, max_size=4)
    ),
    max_leaves=20,
)


def agreed(value: Json) -> bool:
    """Whether no text in `value` is a number to YAML 1.2 alone, such as 0E0: others write that without quotes."""
    if isinstance(value, dict):
        return all(agreed(part) for item in value.items() for part in item)
    if isinstance(value, list):
        return all(map(agreed, value))
    return not isinstance(value, str) or not re.fullmatch(
        r"[-+]?[0-9.]+([eE][-+]?[0-9]+)?|0[ox].*|[-+]?\.(inf|nan)", value, re.IGNORECASE
    )


@given(json_values)
def test_json_is_yaml(value: Json) -> None:
    """Every JSON text reads as the value that it has as JSON."""
    reading = read(json.dumps(value, ensure_ascii=False))
    assert not reading.flaws
    assert reading.documents[0].value == value


@given(json_values.filter(agreed))
def test_what_is_dumped_is_read(value: Json) -> None:
    """What another YAML program writes reads as it was, wherever the versions of YAML agree on it."""
    text = yaml.safe_dump(value, allow_unicode=True)
    reading = read(text)
    assert not reading.flaws
    assert reading.documents[0].value == value


pieces = st.sampled_from(
    [
        *list("[]{}:,-?&*!|>'\"%@`#~<= \t\n\r"),
        "\n---\n",
        "\n...\n",
        "  ",
        "a",
        "&a ",
        "*a",
        "<<: ",
        "|\n  x",
        "!!str ",
        "%YAML 1.2\n",
        "1",
        "true",
        "\ufeff",
        "é",
        "\x00",
        "\x85",
        "\u2028",
        "- ",
        ": ",
        "? ",
    ]
)


@settings(max_examples=400)
@given(st.lists(pieces, max_size=60).map("".join) | st.text(max_size=200))
def test_nothing_but_flaws_comes_of_any_text(text: str) -> None:
    """Whatever is read, there is a document, a flaw with a place in the text, or nothing."""
    reading = read(text.encode("utf-8", "replace").decode())
    for flaw in reading.flaws:
        line, column, _, _ = flaw.mark
        assert 1 <= line <= len(Text("t", text).lines) + 1
        assert column >= 1
    for document in reading.documents:
        json.dumps(document.value, allow_nan=False)
