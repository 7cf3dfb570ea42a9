"""Bundles of OPA go out of a tenant's policy and into it, through the same door as every declaration."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tarfile
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from e2e_runtime import Cli, mask
from syrupy.assertion import SnapshotAssertion

OPA = Path(sys.executable).with_name("opa")

RULE = """# METADATA
# title: Egress
# description: Nothing leaves.
# schemas:
#   - input: schema["policy-input"]
package agentos.syscall.rules.egress

# METADATA
# title: Writing
# description: Nothing is written.
results contains {"rule": "egress.write", "effect": "deny", "reason": "nothing leaves"} if input.syscall.tool == "write-greeting"
"""

TEST = """package agentos.syscall.rules.egress_test

import data.agentos.syscall.rules.egress

test_denied if {
	some result in egress.results with input as {"syscall": {"tool": "write-greeting"}}
	result.effect == "deny"
}

test_in_force if data.agentos.syscall.decision.effect == "deny"
"""


def opa(folder: Path, *words: str) -> str:
    """Run the real `opa` in a folder."""
    done = subprocess.run([OPA, *words], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def uncounted(text: str) -> str:
    """`text` without the number of shipped modules."""
    return re.sub(r"\d+ modules", "N modules", text)


def test_a_bundle_is_pushed_decides_and_is_pulled(up: Cli, tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    """`opa build`, push, run: denied. Pull: the same bytes twice, `opa` reads them, and pushing them back changes nothing."""
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "egress.rego").write_text(RULE)
    opa(tmp_path, "build", "-b", "rules", "-r", "ci-7", "-o", "egress.tar.gz")
    bundle = str(tmp_path / "egress.tar.gz")
    up("apply", "examples/01-hello", "--yes", "--allow-widen")
    up("policy", "push", bundle, expect=64)
    done = up("policy", "push", bundle, "--yes", "--allow-widen")
    assert mask(done.out + done.err, tmp_path) == snapshot
    session = up("run", "hello", "you", "--wait", expect=None).out.strip().splitlines()[0]
    assert "nothing leaves" in up("logs", session).out

    pulled = [tmp_path / "one.tar.gz", tmp_path / "two.tar.gz"]
    for file in pulled:
        done = up("policy", "pull", "-o", str(file))
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        assert done.out == f"sha256:{digest}  {file}\n"
        assert file.stat().st_mode & 0o777 == 0o600
    assert pulled[0].read_bytes() == pulled[1].read_bytes()
    assert uncounted(mask(done.err, tmp_path)) == snapshot
    with tarfile.open(pulled[0]) as tar:
        names = tar.getnames()
    assert {".manifest", "data.json", "egress/rules/egress.rego", "policies/agentos/syscall/main.rego"} <= set(names)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "egress_test.rego").write_text(TEST)
    opa(tmp_path, "test", "one.tar.gz", "tests")
    done = up("policy", "push", str(pulled[0]))
    assert "No changes" in done.out
    assert uncounted(mask(done.err, tmp_path)) == snapshot

    up("policy", "push", bundle, "--mode", "dryrun", "--yes", "--allow-widen")
    assert "egress" in up("policy", "status").out
    assert up("get", "policy", "egress", "-o", "json").json["spec"]["mode"] == "dryrun"
    (rules / "egress.rego").write_text(RULE.replace("Nothing is written.", "Nothing at all is written."))
    opa(tmp_path, "build", "-b", "rules", "-r", "ci-8", "-o", "egress.tar.gz")
    up("policy", "push", bundle, "--yes", "--allow-widen")
    spec = up("get", "policy", "egress", "-o", "json").json["spec"]
    assert spec["mode"] == "dryrun"
    assert "Nothing at all" in spec["modules"][0]["source"]


def test_what_may_not_be_pushed_is_said(up: Cli, tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    """Not signed, not ours to have, no rules, flawed: nothing is changed, and each is told with its mend."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem, public = tmp_path / "ci.pem", tmp_path / "ci.pub"
    form = serialization.PrivateFormat.TraditionalOpenSSL
    pem.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    said = []

    def push(name: str, files: dict[str, str], *words: str, build: tuple[str, ...] = ()) -> None:
        folder = tmp_path / name
        folder.mkdir()
        for path, text in files.items():
            (folder / path).write_text(text)
        opa(tmp_path, "build", "-b", name, "-o", f"{name}.tar.gz", *build)
        done = up("policy", "push", str(tmp_path / f"{name}.tar.gz"), *words, "--yes", "--allow-widen", expect=None)
        said.append(f"{name}: {done.code}: {done.err}")

    push("unsigned", {"a.rego": RULE}, "--verification-key", str(public))
    push("data", {"a.rego": RULE, "data.json": '{"hosts": ["a.example"]}'})
    push("nothing", {"a_test.json": "{}"})
    push("9lives", {"a.rego": RULE})
    push("signed", {"a.rego": RULE}, "--scope", "x")
    assert mask("".join(said), tmp_path) == snapshot
    push("axiom", {"a.rego": "package agentos.syscall\n\ndecision := 1\n"})
    push("elsewhere", {"a.rego": "package mine\n\nx := 1\n"})
    push("flawed", {"a.rego": RULE.replace("input.syscall.tool", "input.syscal.tool")})
    for name, fault in (("axiom", "a.rego:1:1: policy.package"), ("elsewhere", "a.rego:1:1: policy.package")):
        assert f"{name}/{name}/{fault}" in "".join(said)
    assert "flawed/flawed/a.rego:11:98: policy.input: input.syscal does not exist" in said[-1]
    assert len(up("history", "-o", "json").json) == 0
    signed = ("--signing-key", str(pem), "--signing-alg", "ES256")
    push("good", {"a.rego": RULE}, "--verification-key", str(public), build=signed)
    assert "every file is as it was signed" in said[-1]
    assert len(up("history", "-o", "json").json) == 1
