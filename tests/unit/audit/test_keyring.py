"""Rotating the key: who trusts any key of the chain can follow it, nobody can forge a link, a crash leaves one key in use."""

from __future__ import annotations

import stat

import pytest

from agentos.abi.errors import EvidenceError, IdentityError
from agentos.audit.keyring import KeyRing
from agentos.audit.keys import SigningKey, load_key
from agentos.audit.note import sign_note
from agentos.audit.rotation import NAME, TrustedKey, chain_of, keys_of, make_rotation, parse_rotation, trusted_keys
from agentos.audit.trust import load_trust

A, B, C = (SigningKey.from_seed(bytes([number]) * 32) for number in (1, 2, 3))
AB, BC = make_rotation(A, B, 1000), make_rotation(B, C, 2000)


class Dice:
    """Different bytes each time, the same in every run."""

    count = 0

    def token(self, size: int) -> bytes:
        self.count += 1
        return self.count.to_bytes(size, "big")


def test_a_chain_is_followed_both_ways() -> None:
    """Whoever trusts one key of a chain gets them all, each with the time in which it was in use; a stranger gets itself."""
    chain = chain_of([AB.note, BC.note])
    keys = (TrustedKey(A.public, None, 1000), TrustedKey(B.public, 1000, 2000), TrustedKey(C.public, 2000, None))
    for key in (A, B, C):
        assert trusted_keys(key.public, chain) == keys
    stranger = SigningKey.from_seed(bytes(32))
    assert trusted_keys(stranger.public, chain) == (TrustedKey(stranger.public),)
    assert keys_of(()) == ()
    assert [keys[1].counts_at(time) for time in (999, 1000, 2000, 2001)] == [False, True, True, False]


def test_a_link_needs_both_keys() -> None:
    """A rotation that the old key, or the new one, did not sign, or whose text was changed, is none."""
    text = AB.note.split("\n\n")[0] + "\n"
    for note in (sign_note(text, NAME, A), sign_note(text, NAME, B), sign_note(text, "agentos/other", A, B)):
        with pytest.raises(EvidenceError, match="both"):
            parse_rotation(note)
    with pytest.raises(EvidenceError, match="edited"):
        parse_rotation(AB.note.replace("00:00:01", "00:00:02"))
    with pytest.raises(EvidenceError, match="no rotation"):
        parse_rotation(sign_note("another text\n", NAME, A, B))
    with pytest.raises(EvidenceError):
        parse_rotation(sign_note(text.replace("time 1970", "time then"), NAME, A, B))


@pytest.mark.parametrize("notes", [[BC.note, AB.note], [AB.note, make_rotation(A, C, 3000).note], [AB.note, AB.note]])
def test_links_that_do_not_meet_are_no_chain(notes: list[str]) -> None:
    """Out of order, from another key, or twice."""
    with pytest.raises(EvidenceError, match="no chain"):
        chain_of(notes)


def test_a_chain_does_not_come_back() -> None:
    """A key that was replaced is never used again; time does not go back."""
    with pytest.raises(EvidenceError, match="come back"):
        chain_of([AB.note, make_rotation(B, A, 2000).note])
    with pytest.raises(EvidenceError, match="no chain"):
        chain_of([AB.note, make_rotation(B, C, 500).note])


def test_rotating_keeps_the_proof_and_drops_the_key(tmp_path) -> None:
    """The new key is in the file with mode 0600, its public half beside it; the ring opens again with the whole chain."""
    path = tmp_path / "evidence.pem"
    ring = KeyRing.open(path, Dice())
    first = ring.current
    assert ring.trusted == (TrustedKey(first.public),)
    dice = Dice()
    dice.count = 50
    ring.rotate(dice, 1000)
    ring.rotate(dice, 900)
    again = KeyRing.open(path, Dice())
    assert again.current.public == ring.current.public == load_key(path).public
    assert again.rotations == ring.rotations
    assert [key.from_ms for key in again.trusted] == [None, 1000, 1000]
    assert again.since_ms == 1000
    assert again.trusted[0].public == first.public
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.with_name("evidence.pem.pub").read_bytes() == again.current.public_pem
    assert sorted(file.name for file in tmp_path.iterdir()) == ["evidence.pem", "evidence.pem.pub", "evidence.pem.rotations"]


def test_a_rotation_that_was_stopped_is_finished_or_forgotten(tmp_path, monkeypatch) -> None:
    """A crash before the new key was vouched for changes nothing; a crash behind that leads to the new key."""
    from agentos.audit import keyring

    path = tmp_path / "evidence.pem"
    ring = KeyRing.open(path, Dice())
    old, dice = ring.current.public, Dice()
    for step, count in (("_write", 60), ("_put_in_use", 70)):
        dice.count = count
        with monkeypatch.context() as patch:
            patch.setattr(keyring, step, _die)
            with pytest.raises(KeyboardInterrupt):
                ring.rotate(dice, 1000)
        opened = KeyRing.open(path, Dice())
        assert (opened.current.public == old) == (step == "_write")
        assert not path.with_name("evidence.pem.next").exists()
    assert len(opened.rotations) == 1


def _die(*_: object) -> None:
    raise KeyboardInterrupt


def test_keys_that_do_not_follow_each_other_are_refused(tmp_path) -> None:
    """Another key put in place by hand, rotations that cannot be read: the runtime does not start with them."""
    path = tmp_path / "evidence.pem"
    dice = Dice()
    ring = KeyRing.open(path, dice)
    ring.rotate(dice, 1000)
    kept = path.read_bytes()
    path.unlink()
    path.with_name("evidence.pem.pub").unlink()
    with pytest.raises(IdentityError, match="not the one"):
        KeyRing.open(path, dice)
    path.write_bytes(kept)
    path.chmod(0o600)
    path.with_name("evidence.pem.pub").unlink()
    assert KeyRing.open(path, dice).current.public == ring.current.public
    for text in ("[", "{}", '["note"]', "[1]"):
        path.with_name("evidence.pem.rotations").write_text(text)
        with pytest.raises(IdentityError):
            KeyRing.open(path, dice)


def test_a_key_in_no_file_is_not_replaced() -> None:
    """Keys of tests stay what they are."""
    with pytest.raises(IdentityError):
        KeyRing(None, A).rotate(Dice(), 0)


def test_trust_is_a_public_key_or_a_verifier_key() -> None:
    """PEM is for any log, a verifier key for the one it names; anything else is refused."""
    from agentos.audit.note import Verifier

    plain = load_trust(A.public_pem)
    assert (plain.public, plain.name, plain.id) == (A.public, None, A.id)
    named = load_trust(Verifier("agentos/x/default", A.public).text.encode() + b"\n")
    assert (named.public, named.name) == (A.public, "agentos/x/default")
    plain.require("any log")
    named.require("agentos/x/default")
    with pytest.raises(EvidenceError, match="you trust the log"):
        named.require("agentos/x/acme")
    for data in (b"", b"key", b"a+b+c", b"\xff+\xff+\xff", b"-----BEGIN PUBLIC KEY-----\n"):
        with pytest.raises(EvidenceError):
            load_trust(data)
