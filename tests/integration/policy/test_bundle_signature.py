"""A signature of OPA's is accepted for exactly the files that were signed, with the key that signed them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from agentos.abi.errors import PolicyError
from agentos.policy.adapters.bundle_file import SIGNATURES, read_bundle, verify
from agentos.policy.adapters.opa_bundle import archive

OPA = Path(sys.executable).with_name("opa")
DATA = {"é<&>": [1, 1.5, "\u2028\t\u0007", None, True, {"b": {}, "a": []}]}


def pair(folder: Path, name: str, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    """Write a private key where `opa` finds it; the public one."""
    (folder / f"{name}.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def signed(folder: Path, name: str, algorithm: str, claims: dict[str, str] | None = None) -> bytes:
    """A bundle that `opa build` signed."""
    rules = folder / "rules"
    rules.mkdir(exist_ok=True)
    (rules / "x.rego").write_text("package agentos.syscall.rules.x\n")
    (rules / "data.json").write_text(json.dumps(DATA, indent=2))
    (folder / "claims.json").write_text(json.dumps(claims or {}))
    words = [OPA, "build", "-b", "rules", "-o", "b.tar.gz", "-r", "r1", "--signing-key", f"{name}.pem"]
    words += ["--signing-alg", algorithm, *(["--claims-file", "claims.json"] if claims else [])]
    subprocess.run(words, cwd=folder, check=True, timeout=60, capture_output=True)
    return (folder / "b.tar.gz").read_bytes()


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [
        ("RS256", rsa.generate_private_key(65537, 2048)),
        ("PS512", rsa.generate_private_key(65537, 2048)),
        ("ES256", ec.generate_private_key(ec.SECP256R1())),
        ("ES384", ec.generate_private_key(ec.SECP384R1())),
    ],
)
def test_what_opa_signed_is_accepted(tmp_path: Path, algorithm: str, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> None:
    """With each kind of key, and with another key it is not."""
    public = pair(tmp_path, "ci", key)
    bundle = read_bundle(signed(tmp_path, "ci", algorithm, {"iss": "ci", "scope": "write"}), "b")
    assert verify(bundle, public, scope="write", where="b") == "ci"
    with pytest.raises(PolicyError, match="for the scope 'write', not ''"):
        verify(bundle, public, where="b")
    for other in (pair(tmp_path, "o", rsa.generate_private_key(65537, 2048)), pair(tmp_path, "p", type_of(key))):
        with pytest.raises(PolicyError, match="not of this key"):
            verify(bundle, other, scope="write", where="b")


def type_of(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    """Another key of the same kind."""
    return rsa.generate_private_key(65537, 2048) if isinstance(key, rsa.RSAPrivateKey) else ec.generate_private_key(key.curve)


def test_a_change_after_the_signature_is_found(tmp_path: Path) -> None:
    """In a file, in the data, in the manifest; a file more, a file less, no signature."""
    public = pair(tmp_path, "ci", ec.generate_private_key(ec.SECP256R1()))
    files = dict(read_bundle(signed(tmp_path, "ci", "ES256"), "b").files)
    assert verify(read_bundle(archive(files), "b"), public, where="b") == ""
    reformatted = json.dumps(json.loads(files["data.json"]), indent=3, ensure_ascii=True).encode()
    verify(read_bundle(archive(files | {"data.json": reformatted}), "b"), public, where="b")
    rego = next(name for name in files if name.endswith(".rego"))
    for changed, said in (
        (files | {rego: files[rego] + b"\n"}, "changed after"),
        (files | {"data.json": b"{}"}, "data.json was changed after"),
        (files | {".manifest": b'{"revision":"r2","roots":[""],"rego_version":1}'}, "manifest was changed after"),
        (files | {"more.rego": b"package a\n"}, "more.rego is not in the signature"),
        ({name: body for name, body in files.items() if name != rego}, "is not in the bundle"),
        ({name: body for name, body in files.items() if name != SIGNATURES}, "has no signature"),
        (files | {SIGNATURES: b'{"signatures": ["a", "b"]}'}, "not one signature"),
        (files | {SIGNATURES: b'{"signatures": ["eyJhbGciOiJub25lIn0.e30."]}'}, "not of this key"),
    ):
        with pytest.raises(PolicyError, match=said):
            verify(read_bundle(archive(changed), "b"), public, where="b")
    with pytest.raises(PolicyError, match="no public key"):
        verify(read_bundle(archive(files), "b"), b"a shared secret", where="b")
