"""The log as a Tenant declares it and as `status` shows it: streams of this month, replicas, sync, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from e2e_runtime import Cli

from agentos.eventlog.subject import session_subject, stream_of

HELLO = """
apiVersion: agentos/v1
kind: Model
metadata: {name: steps}
spec: {provider: scripted, scripted: {play: {name: steps, rules: [{id: done, when: "true", say: "done"}]}}}
---
apiVersion: agentos/v1
kind: Agent
metadata: {name: worker}
spec:
  instructions: Say that it is done.
  model: steps
  governance: {owner: tests, purpose: testing, risk: minimal}
"""
TENANT = "{{apiVersion: agentos/v1, kind: Tenant, metadata: {{name: default}}, spec: {{log: {{{log}}}}}}}"
STATUS = Path(__file__).parents[2] / "schemas" / "v1" / "status.json"


def test_the_first_session_of_a_month_is_seen_at_once(up: Cli, tmp_path: Path) -> None:
    """Its stream did not exist before it: `ps`, `status` and a checkpoint name it with their very next answer."""
    (tmp_path / "hello.yaml").write_text(HELLO)
    up("apply", str(tmp_path / "hello.yaml"), "--yes", "--allow-widen")
    assert [row["name"] for row in json.loads(up("status", "-o", "json").out)["streams"]] == ["CKPT"]
    session = up("run", "worker", "go", "--wait", "-o", "name").out.strip()
    assert [row["id"] for row in json.loads(up("ps", "--all", "-o", "json").out)] == [session]
    stream = stream_of(session_subject(session))
    assert json.loads(up("audit", "checkpoint", "--now", "-o", "json").out)["streams"][stream] > 0
    status = json.loads(up("status", "-o", "json").out)
    jsonschema.validate(status, json.loads(STATUS.read_text()))
    row = {row["name"]: row for row in status["streams"]}[stream]
    assert row["messages"] == row["last"] > 0
    assert {key: row[key] for key in ("first", "replicas", "atomic", "read_model_behind", "checkpoint_behind")} == {
        "first": 1,
        "replicas": 1,
        "atomic": True,
        "read_model_behind": 0,
        "checkpoint_behind": 0,
    }
    assert status["stored"]["messages"] == sum(one["messages"] for one in status["streams"])
    assert status["sync_always"] is True
    up("audit", "verify")


@pytest.mark.parametrize(
    ("log", "said"),
    [("replicas: 3", "the server keeps 1 replica of an event, tenant default declares 3"), ("replicas: 2", "spec.log.replicas")],
)
def test_what_the_server_cannot_keep_is_refused(up: Cli, tmp_path: Path, log: str, said: str) -> None:
    """A server that stands alone has no replicas: nothing is applied, and the message says what to do."""
    (tmp_path / "tenant.yaml").write_text(TENANT.format(log=log))
    done = up("apply", str(tmp_path / "tenant.yaml"), "--yes", expect=64 if log == "replicas: 3" else 1)
    assert said in done.err + done.out
    assert json.loads(up("status", "-o", "json").out)["revision"] == 0


def test_a_sync_that_is_proven_may_be_required(up: Cli, tmp_path: Path) -> None:
    """The embedded server proves it, so a tenant that insists on it is served."""
    (tmp_path / "tenant.yaml").write_text(TENANT.format(log="requireSync: true"))
    up("apply", str(tmp_path / "tenant.yaml"), "--yes")
    assert json.loads(up("status", "-o", "json").out)["revision"] == 1
