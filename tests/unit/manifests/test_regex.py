"""Patterns that OPA would refuse are refused early; patterns that it takes are not."""

from __future__ import annotations

import pytest

from agentos.manifests.regex import refused_glob, refused_pattern


@pytest.mark.parametrize(
    "pattern",
    [
        r"[a-z]+\.md",
        "a|b",
        "",
        r"\d{1,1000}",
        "(?i)abc",
        "(?P<x>a)",
        "(?:a)",
        r"\pL+",
        r"\p{Greek}",
        "[[:alpha:]]",
        r"a\z",
        r"\Qa[\E",
        r"[\]]",
        "[]a]",
        "[^]a]",
        r"\x{10FFFF}",
        r"[(?=]",
        "a(?i)b",
        "(?<x>a)",
    ],
)
def test_sound_patterns(pattern: str) -> None:
    """What RE2 takes passes."""
    assert refused_pattern(pattern) is None


@pytest.mark.parametrize(
    "pattern",
    [
        "[a",
        "(a",
        "a)",
        "*a",
        r"(a)\1",
        "(?=a)",
        "(?!a)",
        "(?<=a)",
        "(?<!a)",
        "(?>a)",
        "a\\",
        "a{1001}",
        r"a\Z",
        "(?#c)",
        "(?P=x)",
    ],
)
def test_refused_patterns(pattern: str) -> None:
    """What RE2 does not take is told with a reason."""
    assert refused_pattern(pattern)


@pytest.mark.parametrize(
    ("glob", "sound"),
    [
        ("output/**", True),
        ("{a,b}/*.md", True),
        ("[a-z]?", True),
        (r"\[a", True),
        ("[a", False),
        ("{a", False),
        ("a}", False),
        ("a\\", False),
    ],
)
def test_globs(glob: str, sound: bool) -> None:
    """Brackets and braces are closed."""
    assert (refused_glob(glob) is None) == sound
