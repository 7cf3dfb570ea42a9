"""A canary goes through real processes in real sandboxes, and comes back in no channel and no way of writing."""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path

import pytest

from agentos.abi.errors import DriverError
from agentos.abi.syscall import Result, ToolEffect
from agentos.credentials.adapters.sources import all_sources
from agentos.credentials.broker import Broker
from agentos.credentials.reference import Credential, SecretRef
from agentos.drivers import CallContext, Drivers, ToolSpec
from agentos.drivers.cleaned import Cleaned
from agentos.drivers.dispatch import Hands
from agentos.sandbox.adapters.bubblewrap import Bubblewrap

CANARY = "canary-9fQ2xLr7VbT0sKdE4wYzMnAa1uHc3JpG"
WAYS = {
    "raw": CANARY,
    "reversed": CANARY[::-1],
    "hex": CANARY.encode().hex(),
    "base64": base64.b64encode(CANARY.encode()).decode(),
    "base64 shifted": base64.b64encode(b"x:" + CANARY.encode()).decode(),
    "base32": base64.b32encode(CANARY.encode()).decode(),
    "percent": "".join(f"%{byte:02X}" for byte in CANARY.encode()),
    "json": "".join(f"\\u{ord(char):04x}" for char in CANARY),
    "html": "".join(f"&#{ord(char)};" for char in CANARY),
    "lines": "\n".join(CANARY),
    "spaced": " ".join(CANARY),
}
SHOW = """
import base64, json, os, sys
v = os.environ["TOKEN"]
assert open("/run/secrets/token").read() == v
ways = [v, v[::-1], v.encode().hex(), base64.b64encode(v.encode()).decode(), base64.b64encode(b"x:" + v.encode()).decode(),
    base64.b32encode(v.encode()).decode(), "".join("%%%02X" % b for b in v.encode()), "".join("\\\\u%04x" % ord(c) for c in v),
    "".join("&#%d;" % ord(c) for c in v), "\\n".join(v), " ".join(v)]
how = sys.argv[1]
if how == "json":
    print(json.dumps({"ways": ways, v: 1}))
elif how == "flood":
    sys.stdout.write("x" * 100000 + v * 3000)
else:
    print(*ways, sep="\\n")
    print(*ways, sep="\\n", file=sys.stderr)
    open("/workspace/" + v, "w").write("\\n".join(ways))
sys.exit(3 if how == "fail" else 0)
"""


class Now:
    """A clock that stands still, and the operating system's randomness."""

    def now_ms(self) -> int:
        return 1_700_000_000_000

    def token(self, size: int) -> bytes:
        return os.urandom(size)


class Kept:
    """What was kept of outputs."""

    def __init__(self) -> None:
        self.all: list[bytes] = []

    def keep(self, tenant: str, session: str, data: bytes) -> str:
        self.all.append(data)
        return f"sha256:{len(self.all)}"


@pytest.mark.parametrize("how", ["fine", "fail", "json", "flood"])
async def test_a_canary_in_every_channel(how: str, tmp_path: Path) -> None:
    """Output, error output, exit codes, JSON, and an output that is cut and kept: the canary is in none of them."""
    secret = tmp_path / "secret"
    secret.write_text(CANARY + "\n")
    secret.chmod(0o600)
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    broker, kept = Broker(all_sources({}), Now(), Now()), Kept()
    hands = Hands(sandboxes=Bubblewrap(None, os.environ["PATH"]), outputs=Cleaned(broker, kept.keep))
    drivers = Drivers(hands=hands, broker=broker)
    command = [sys.executable, "-I", "-c", SHOW, how]
    tool = ToolSpec(
        "show",
        "",
        ToolEffect.READ,
        True,
        {"type": "object"},
        {"exec": {"command": command, **({"output": "json"} if how == "json" else {})}},
        credentials=(Credential("canary", env="TOKEN"), Credential("canary", file="token")),
        output_bytes=65536,
    )
    place = CallContext(
        "acme",
        "s-1",
        "c-1",
        workspace,
        decided=(4, "sha256:decision"),
        secrets={"canary": SecretRef("canary", "file", str(secret))},
    )
    try:
        result = await drivers.call(tool, {}, place)
        _clean(json.dumps([result.content, result.data, dict(result.acted)], ensure_ascii=False))
        _clean(result.content)
        assert result.is_error == (how == "fail")
        assert "[masked]" in str(result) + str(kept.all)
        assert [lease["secret"] for lease in result.acted["leases"]] == ["canary"]
        assert result.acted["decision"] == {"seq": 4, "hash": "sha256:decision"}
        assert (how == "flood") == bool(kept.all)
        for data in kept.all:
            _clean(data.decode())
        assert broker.live() == []
        await _later(drivers, place)
    finally:
        await drivers.close()
        await broker.close()


async def _later(drivers: Drivers, place: CallContext) -> None:
    """What the process has left in the workspace is not shown by another tool without credentials, nor is it by its errors."""
    for primitive, args in (("list", {}), ("search", {"pattern": "canary"}), ("read", {"path": "none/" + CANARY})):
        tool = ToolSpec(primitive, "", ToolEffect.READ, True, {}, {"builtin": {"primitive": primitive}})
        try:
            result = await drivers.call(tool, args, place)
        except DriverError as error:
            result = Result(str(error.to_dict()))
        _clean(f"{result.content}{result.data}")


def _clean(text: str) -> None:
    for name, way in WAYS.items():
        assert way not in text, name
        assert way[: len(way) // 2] not in text, name
