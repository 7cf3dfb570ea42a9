"""A syscall: the only way an agent affects the world. What it is, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from agentos.abi.canonical import Json

MODEL_CALL: Final = "model-call"
"""The name under which a call of the model passes the gate."""

NET_REQUEST: Final = "net-request"
"""The name under which a request that leaves passes the gate: `{call, tool, scheme, host, port, method?, path?, sandbox?}`."""

PSEUDO: Final = frozenset({MODEL_CALL, NET_REQUEST})
"""Names that no Tool may have."""


class ToolEffect(StrEnum):
    """What a tool does to the world, declared by the operator."""

    READ = "read"
    WRITE = "write"
    EXTERNAL = "external"


@dataclass(frozen=True, slots=True)
class Syscall:
    """One call as proposed by the brain. `call` is the id that the session knows it by (unique in the session)."""

    call: str
    tool: str
    args: dict[str, Json] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Result:
    """What a tool gave back.

    `content` is text for the model; `data` is JSON for programs (None if the tool has none); `is_error` says that the tool ran
    and reports a failure of its own (the model reads it). `labels` travel into the session. `acted` is for the log alone: under
    which decision, in which sandbox and with which leases it was made, and the change that it made to files.
    """

    content: str
    data: Json = None
    is_error: bool = False
    labels: tuple[str, ...] = ()
    acted: Mapping[str, Json] = field(default_factory=dict, hash=False)

    def to_dict(self) -> dict[str, Json]:
        """The JSON shape stored in the log and sent to the harness."""
        body: dict[str, Json] = {"content": self.content, "is_error": self.is_error}
        if self.data is not None:
            body["data"] = self.data
        if self.labels:
            body["labels"] = list(self.labels)
        return body

    @classmethod
    def from_dict(cls, body: dict[str, Json]) -> Result:
        return cls(
            content=str(body["content"]),
            data=body.get("data"),
            is_error=bool(body["is_error"]),
            labels=tuple(body.get("labels", ())),
        )
