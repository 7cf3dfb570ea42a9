"""What AgentOS makes, read by a public implementation that knows nothing of it, and the other way round."""

from __future__ import annotations

import base64
import random

import pytest

from agentos.audit.checkpoint import open_checkpoint
from agentos.audit.keyring import KeyRing
from agentos.audit.keys import SigningKey
from agentos.audit.merkle import (
    Frontier,
    check_consistency,
    check_inclusion,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_of,
)
from agentos.audit.note import Verifier, parse_note, sign_note
from agentos.audit.prover import Prover
from agentos.audit.rotation import NAME, make_rotation
from agentos.audit.tiles import WIDTH, TileStore
from agentos.eventlog.adapters.memory import MemoryLog
from agentos.eventlog.port import Message
from agentos.eventlog.subject import session_subject, stream_of

KEY = SigningKey.from_seed(bytes(range(32)))


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def leaves(size: int) -> list[bytes]:
    return [b'{"seq":%d}' % number for number in range(size)]


def nodes(size: int):
    hashes = [leaf_hash(item) for item in leaves(size)]

    def node(level: int, index: int) -> bytes:
        frontier = Frontier()
        for at in range(index << level, (index + 1) << level):
            frontier.append(hashes[at])
        return frontier.root()

    return node


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 8, 9, 31, 64, 100, 255, 257])
def test_roots_and_proofs_are_the_same(public_verifier, size: int) -> None:
    """Root, every path and some proofs of growth: equal to theirs, and each side accepts the other's."""
    dice, node = random.Random(size), nodes(size)
    given = [b64(item) for item in leaves(size)]
    root = base64.b64decode(public_verifier("root", leaves=given, size=size)["hash"])
    assert root_of(node, size) == root
    for index in {0, size - 1, *(dice.randrange(size) for _ in range(10))}:
        ours = inclusion_proof(node, index, size)
        theirs = public_verifier("include", leaves=given, size=size, index=index)
        assert [b64(step) for step in ours] == theirs.get("hashes", [])
        words = {"size": size, "root": b64(root), "index": index, "data": given[index]}
        assert public_verifier("included", path=[b64(step) for step in ours], **words)["ok"]
        assert not public_verifier("included", path=[b64(step) for step in ours], **words | {"data": b64(b"other")})["ok"]
        assert check_inclusion(leaf_hash(leaves(size)[index]), index, size, ours, root)
    for old in {1, size, *(dice.randint(1, size) for _ in range(10))}:
        ours = consistency_proof(node, old, size)
        theirs = public_verifier("extend", leaves=given, size=size, old=old)
        assert [b64(step) for step in ours] == theirs.get("hashes", [])
        before = root_of(node, old)
        words = {"size": size, "root": b64(root), "old": old, "before": b64(before)}
        assert public_verifier("extends", path=[b64(step) for step in ours], **words)["ok"]
        assert check_consistency(old, size, before, root, [base64.b64decode(step) for step in theirs.get("hashes", [])])


def test_tiles_are_the_same(public_verifier, tmp_path) -> None:
    """Stored tiles are, byte for byte, the tiles that they compute: full and partial, of both levels."""
    size = 700
    store = TileStore.open(tmp_path / "t.db", tenant="default")
    store.extend(("EV_0", leaf_hash(item), None) for item in leaves(size))
    given = [b64(item) for item in leaves(size)]
    for level, number, width in ((0, 0, WIDTH), (0, 1, WIDTH), (0, 2, size - 512), (1, 0, 2)):
        theirs = base64.b64decode(public_verifier("tile", leaves=given, level=level, number=number, width=width)["hash"])
        assert store._tile("EV_0", level, number) == theirs
    store.close()


def test_their_note_is_ours(public_verifier) -> None:
    """A note signed there is byte for byte the note signed here, and opens on either side; so does one with two signatures."""
    text = "agentos/0123456789abcdef/default\n1\nAAAA\n"
    seed = b64(b"\x01" + bytes(range(32)))
    verifier = Verifier("agentos/0123456789abcdef/default", KEY.public)
    theirs = public_verifier("sign", text=text, keys=[f"PRIVATE+KEY+{verifier.name}+{verifier.hash.hex()}+{seed}"])["note"]
    assert theirs == sign_note(text, verifier.name, KEY)
    assert parse_note(theirs).signers([verifier]) == (verifier,)
    other = SigningKey.from_seed(bytes(32))
    rotation = make_rotation(KEY, other, 1_795_000_000_000).note
    keys = [Verifier(NAME, key.public).text for key in (KEY, other)]
    assert public_verifier("open", note=rotation, keys=keys)["names"] == [NAME, NAME]
    assert not public_verifier("open", note=rotation.replace("2026", "2027"), keys=keys)["ok"]


async def test_a_checkpoint_and_a_proof_hold_there(public_verifier, tmp_path, record) -> None:
    """The note opens with the verifier key, and the path in a proof file leads there from the event to the root in the note."""

    class Still:
        def now_ms(self) -> int:
            return 1_795_000_000_000

    log = MemoryLog()
    chain = record.busy_session("s-busy")
    subject = session_subject("s-busy")
    await log.append(subject, [Message(f"m{at}", line) for at, line in enumerate(chain.stored)], after=0)
    tiles = TileStore.open(tmp_path / "t.db", tenant="default")
    prover = Prover("default", log, tiles, KeyRing(None, KEY), Still())
    await prover.open()
    stream = stream_of(subject)
    first = await prover.sign()
    await prover.take([(stream, stored) async for stored in log.scan(stream)])
    second = await prover.sign()
    key = Verifier(prover.origin, KEY.public).text
    said = public_verifier("open", note=second.note, keys=[key])
    assert (said["ok"], said["names"]) == (True, [prover.origin])
    origin, number, root, *_ = said["note"].splitlines()
    assert (origin, number) == (prover.origin, "2")
    assert not public_verifier("open", note=second.note.replace("\n2\n", "\n3\n"), keys=[key])["ok"]
    assert open_checkpoint(second.note, prover.ring.trusted) == second.checkpoint
    # The checkpoint log only grows: what a witness would check.
    path = [b64(step) for step in consistency_proof(tiles.nodes("CKPT"), 1, 2)]
    words = {"size": 2, "root": root, "old": 1, "before": b64(first.checkpoint.root)}
    assert public_verifier("extends", path=path, **words)["ok"]
    _, _, size, stream_root = next(line for line in said["note"].splitlines() if line.startswith(f"stream {stream}")).split(" ")
    for number in range(1, len(chain.stored) + 1):
        proof = await prover.prove(await prover.place_of(f"s-busy#{number}"))
        words = {"size": int(size), "root": stream_root, "index": proof["leaf"], "data": proof["event"], "path": proof["path"]}
        assert public_verifier("included", **words)["ok"]
    tiles.close()
