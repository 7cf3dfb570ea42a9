"""The streams of an account: made where they are missing, checked where they exist, and described for `agentos status`.

    facts = await ensure_streams(client, ["CKPT"])
    facts[0].atomic        # True: group commit; False: the server or the stream takes no atomic batches, appends go one by one

What a stream must keep is in `_KEEPS`. Switches that only make it safer or faster are turned on where they are off; anything
else that differs was somebody's decision (a limit, a mirror, a republish): the stream is refused, with the field and its value.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from nats.aio.client import Client

from agentos.abi.canonical import Json
from agentos.abi.errors import LogUnavailable
from agentos.eventlog.adapters.refusal import MISSING, OTHER_CONFIG, explain
from agentos.eventlog.adapters.stream_reading import Link
from agentos.eventlog.subject import is_ours, subjects_of

_KEEPS: Final[dict[str, Any]] = {
    "storage": "file",
    "retention": "limits",
    "discard": "new",  # should a limit ever be set, refuse what is new rather than drop what is old
    "max_msgs": -1,
    "max_bytes": -1,
    "max_age": 0,
    "max_msgs_per_subject": -1,
    "max_msg_size": -1,
    "deny_delete": True,
    "deny_purge": True,
    "allow_direct": True,
    "allow_atomic": True,
}
_ABSENT: Final[dict[str, Any]] = {  # other ways to write, rewrite, or lose what was written
    "allow_rollup_hdrs": False,
    "allow_msg_ttl": False,
    "mirror": None,
    "no_ack": False,
    "persist_mode": None,
    "republish": None,
    "sealed": False,
    "sources": None,
    "subject_transform": None,
}
_SWITCHES: Final = ("deny_delete", "deny_purge", "allow_direct", "allow_atomic")  # may be turned on by us
_OPTIONAL: Final = frozenset({"allow_atomic"})  # done without where the server does not have it


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """What a stream is: `first` and `last` are positions, 0 for none; `mended` names the switches that were just turned on."""

    name: str
    atomic: bool
    replicas: int
    messages: int
    bytes: int
    subjects: int
    first: int
    last: int
    created: str
    mended: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Json]:
        """As JSON for `status`."""
        return {
            "name": self.name,
            "atomic": self.atomic,
            "replicas": self.replicas,
            "messages": self.messages,
            "bytes": self.bytes,
            "subjects": self.subjects,
            "first": self.first,
            "last": self.last,
            "created": self.created,
            "mended": list(self.mended),
        }


async def ensure_streams(
    client: Client, names: Iterable[str], *, replicas: int = 1, patience: float = 10.0
) -> tuple[StreamFacts, ...]:
    """Make the streams that are missing, mend and check those that exist; what they are, in the order of `names`.

    Raises LogUnavailable when one cannot be made or given so many `replicas`, or could lose, change or hide messages (the field
    and its value are said).
    """
    link = Link(client, patience)
    return tuple(await asyncio.gather(*(ensure_stream(link, name, replicas) for name in names)))


async def describe_streams(
    client: Client, names: Iterable[str] | None = None, *, patience: float = 10.0
) -> tuple[StreamFacts, ...]:
    """What the streams `names` are now, in that order; None: all of ours, by name. Raises LogUnavailable for a missing one."""
    link = Link(client, patience)
    if names is None:
        return await every_stream(link)
    answers = await asyncio.gather(*(_ask(link, f"STREAM.INFO.{name}", {}, name) for name in names))
    return tuple(_facts(answer) for answer in answers)


async def every_stream(link: Link) -> tuple[StreamFacts, ...]:
    """All streams of ours in the account, by name. Raises LogUnavailable, also when one of them cannot be told of."""
    found: list[StreamFacts] = []
    seen, total = 0, 1
    while seen < total:
        answer = await link.api("STREAM.LIST", {"offset": seen})
        if "error" in answer:
            raise explain("JetStream", answer["error"])
        missing = sorted(name for name in answer.get("missing") or () if is_ours(name))
        if missing:
            raise LogUnavailable(f"stream {missing[0]} has no leader at the moment", where=missing[0], mend="repeating is safe")
        page = answer.get("streams") or []
        found += (_facts(one) for one in page if is_ours(one["config"]["name"]))
        seen, total = seen + len(page), int(answer["total"]) if page else 0
    return tuple(sorted(found, key=lambda one: one.name))


async def keep_replicas(client: Client, replicas: int, *, patience: float = 10.0) -> None:
    """Give every stream of ours in the account so many replicas. Raises LogUnavailable where the server cannot."""
    link = Link(client, patience)
    for facts in await every_stream(link):
        if facts.replicas != replicas:
            config = (await _ask(link, f"STREAM.INFO.{facts.name}", {}, facts.name))["config"]
            await _ask(link, f"STREAM.UPDATE.{facts.name}", config | {"num_replicas": replicas}, facts.name)


async def drop_stream(client: Client, name: str, *, patience: float = 10.0) -> None:
    """Close a stream for good and delete it with all that it holds. Safe to repeat. Raises LogUnavailable.

    It is sealed first: nothing comes in between what its last checkpoint says and its end.
    """
    link = Link(client, patience)
    found = await link.api(f"STREAM.INFO.{name}", {})
    if found.get("error", {}).get("err_code") in MISSING:
        return
    if "error" in found:
        raise explain(name, found["error"])
    if not found["config"].get("sealed"):
        await _ask(link, f"STREAM.UPDATE.{name}", found["config"] | {"sealed": True}, name)
    gone = await link.api(f"STREAM.DELETE.{name}", {})
    if "error" in gone and gone["error"].get("err_code") not in MISSING:
        raise explain(name, gone["error"])


async def api_level(client: Client, *, patience: float = 10.0) -> int:
    """The level of the server's JetStream API: 2 and above know atomic batches. Raises LogUnavailable."""
    answer = await _ask(Link(client, patience), "INFO", {}, "JetStream")
    return int(answer.get("api", {}).get("level", 0))


async def ensure_stream(link: Link, name: str, replicas: int) -> StreamFacts:
    """See `ensure_streams`."""
    wanted = {"name": name, "subjects": [subjects_of(name)], "num_replicas": replicas, **_KEEPS}
    answer = await link.api(f"STREAM.CREATE.{name}", wanted)
    mended: tuple[str, ...] = ()
    if answer.get("error", {}).get("err_code") == OTHER_CONFIG:
        answer = await _ask(link, f"STREAM.INFO.{name}", {}, name)
        mended = tuple(field for field in _SWITCHES if not answer["config"].get(field))
        changes = dict.fromkeys(mended, True) | {"num_replicas": replicas}
        differs = mended or answer["config"].get("num_replicas", 1) != replicas
        if differs and not _faults(answer["config"], wanted, but=(*_SWITCHES, "num_replicas")):
            answer = await _ask(link, f"STREAM.UPDATE.{name}", answer["config"] | changes, name)
    if "error" in answer:
        raise explain(name, answer["error"])
    found = answer["config"]
    wrong = _faults(found, wanted, but=_OPTIONAL)
    if wrong:
        raise LogUnavailable(
            f"stream {name} is not fit for the event log: {'; '.join(wrong)}",
            where=name,
            mend="use an account of its own for AgentOS, or correct the stream's configuration",
        )
    return _facts(answer, tuple(field for field in mended if found.get(field)))


async def _ask(link: Link, what: str, body: dict[str, Any], where: str) -> dict[str, Any]:
    answer = await link.api(what, body)
    if "error" in answer:
        raise explain(where, answer["error"])
    return answer


def _faults(found: dict[str, Any], wanted: dict[str, Any], *, but: Iterable[str]) -> list[str]:
    """What is wrong with the configuration `found`, the fields `but` left out."""
    spared = set(but)
    return [
        f"{field} is {json.dumps(found.get(field))}, expected {json.dumps(value)}"
        for field, value in (wanted | _ABSENT).items()
        if field not in spared and (found.get(field) or None) != (value or None)
    ]


def _facts(answer: dict[str, Any], mended: tuple[str, ...] = ()) -> StreamFacts:
    config, state = answer["config"], answer["state"]
    return StreamFacts(
        name=config["name"],
        atomic=config.get("allow_atomic") is True,
        replicas=int(config.get("num_replicas", 1)),
        messages=int(state["messages"]),
        bytes=int(state["bytes"]),
        subjects=int(state.get("num_subjects", 0)),
        first=int(state["first_seq"]),
        last=int(state["last_seq"]),
        created=str(answer.get("created", "")),
        mended=mended,
    )
