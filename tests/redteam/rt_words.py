"""Words that would be something else: options, commands, variables, other words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rt_case import CONTAINED, DENIED, FAILED, INERT, REFUSED, Check, Group, Step, Told, lay
from rt_world import World


def groups(world: World) -> Iterator[Group]:
    yield Group("arguments", "words", list(_words(world)), seconds=120)


def _as(*words: str) -> Check:
    """The program was given exactly these words, and no others."""

    def check(_: World, told: Told) -> str | None:
        import json

        given = json.loads(told.text)
        return None if given == list(words) else f"it was given {given!r}"

    return check


_INERT = {
    "semicolon": "a; touch /workspace/pwned",
    "substitution": "$(touch /workspace/pwned)",
    "backticks": "`touch /workspace/pwned`",
    "pipe": "a | touch /workspace/pwned",
    "ampersand": "a && touch /workspace/pwned",
    "redirect": "a > /workspace/pwned",
    "newline": "a\ntouch /workspace/pwned",
    "carriage-return": "a\r\ntouch /workspace/pwned",
    "quotes": "'\"'\"; touch /workspace/pwned",
    "glob": "*",
    "tilde": "~",
    "variable": "$HOME ${IFS} $PATH",
    "assignment": "LD_PRELOAD=/workspace/evil.so",
    "environment": "PATH=/workspace PYTHONSTARTUP=/workspace/x",
    "escape": "a\\\\\nb",
    "empty": "",
    "space": " ",
    "spaces": "a b  c",
    "unicode-dash": "\u2010\u2010help",
    "minus-sign": "\u2212rf",
    "zero-width-dash": "\u200b-rf",
    "at-file": "@/etc/passwd",
    "plus": "+command",
    "ansi": "\x1b]0;pwned\x07\x1b[2J",
    "rtl": "\u202egnp.exe",
    "percent": "%s%s%n",
    "braces": "{{ 7 * 7 }} {% x %} ${7*7}",
}


def _words(world: World) -> Iterator[Step]:
    yield lay("words-laid", "shell", {"script": "mkdir -p d; echo one > d/a.txt; echo two > ./-rf"})
    for name, word in _INERT.items():
        yield Step(f"word-{name}", f"a word with {name}", "words", {"word": word}, INERT, _all(_as(word), _not_run))
        yield Step(f"word-end-{name}", f"a word with {name} behind --", "ended", {"word": word}, INERT, _as("--", word))
    for name, word in {"short": "-rf", "long": "--help", "end": "--", "one": "-", "with-value": "--output=/etc/x"}.items():
        yield Step(f"dash-{name}", f"a word that is an option: {name}", "words", {"word": word}, FAILED)
        yield Step(f"dash-flag-{name}", f"an option behind a flag: {name}", "flagged", {"word": word}, FAILED)
        yield Step(f"dash-end-{name}", f"an option behind --: {name}", "ended", {"word": word}, INERT, _as("--", word))
        yield Step(f"dash-list-{name}", f"an option in a list: {name}", "many", {"all": ["a", word]}, FAILED)
    yield Step("dash-find", "have grep take a file of patterns", "find", {"pattern": "-f/etc/passwd"}, FAILED)
    yield Step("dash-tar", "have tar run a command", "unpack", {"archive": "--to-command=touch pwned"}, CONTAINED, _not_run)
    yield Step("dash-file", "a file whose name is an option", "count", {"file": "-rf"}, INERT)
    yield Step(
        "tar-checkpoint",
        "have tar run a command at a checkpoint",
        "unpack",
        {"archive": "--checkpoint-action=exec=sh"},
        CONTAINED,
        _not_run,
    )
    yield Step("nul", "end a word early", "words", {"word": "a\0b"}, FAILED | REFUSED | DENIED)
    yield Step("surrogate", "a word that is no Unicode", "words", {"word": "a\udc80"}, FAILED | REFUSED)
    yield Step("long", "a word that is too long", "words", {"word": "x" * 140_000}, FAILED)
    yield Step("many", "more words than fit", "many", {"all": ["x"] * 9000}, FAILED)
    yield Step("many-long", "words that together are too long", "many", {"all": ["x" * 100_000] * 12}, FAILED | REFUSED)
    yield Step("many-fit", "words that together are a little too long", "many", {"all": ["x" * 100_000] * 10}, FAILED | INERT)
    yield Step("list-for-word", "a list in the place of a word", "words", {"word": ["a", "-rf"]}, REFUSED)
    yield Step("object-for-list", "an object in the place of a list", "many", {"all": {"0": "-rf"}}, REFUSED)
    yield Step("extra", "an argument that there is none of", "words", {"word": "a", "env": {"LD_PRELOAD": "x"}}, REFUSED)
    yield Step("extra-command", "another program", "words", {"word": "a", "command": ["sh", "-c", "id"]}, REFUSED)
    inner: dict[str, Any] = {"code": "import os; print(sorted(k for k in os.environ if 'TOKEN' in k or 'SECRET' in k))"}
    yield Step("environment", "look for credentials of others in the environment", "python", inner, CONTAINED, _no_secret)


def _all(*checks: Check) -> Check:
    def check(world: World, told: Told) -> str | None:
        return next((found for one in checks if (found := one(world, told)) is not None), None)

    return check


def _not_run(world: World, told: Told) -> str | None:
    """Nothing ran that is in a word."""
    found = world.workspace(world.sessions["words"]) / "pwned"
    return "a command in a word was run" if found.exists() else None


def _no_secret(world: World, told: Told) -> str | None:
    return None if told.text.strip() == "[]" else f"it found {told.text[:200]}"
