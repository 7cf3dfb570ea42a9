"""The configuration of Litestream: written for the read models without payload, read strictly."""

from __future__ import annotations

import stat

import pytest
import yaml

from agentos.abi.errors import AgentOSError, UsageError
from agentos.boot.home import Home
from agentos.boot.litestream import environment, read_config, write_config


@pytest.fixture
def home(tmp_path):
    made = Home(tmp_path / "home")
    made.prepare()
    for name in ("acme.db", "acme.text.db", "acme.tiles.db", "REG.tiles.db", "acme.db-wal", "Odd.db", "notes.txt"):
        (made.read / name).touch()
    return made


def test_what_is_replicated(home, tmp_path):
    """Indexes and trees, never what holds payloads; the file is the owner's alone and reads back."""
    path = tmp_path / "litestream.yml"
    assert write_config(path, home, "file:///mnt/a b/") == ["REG.tiles.db", "acme.db", "acme.tiles.db"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_config(path, home.read) == [home.read / name for name in ("REG.tiles.db", "acme.db", "acme.tiles.db")]
    assert yaml.safe_load(path.read_text())["dbs"][1]["replica"] == {"type": "file", "path": "/mnt/a b/acme.db"}
    assert "text" not in path.read_text().replace("type: text", "")


def test_a_fresh_home(tmp_path):
    """Before anything was written there is the default tenant."""
    made = Home(tmp_path / "home")
    made.prepare()
    assert write_config(tmp_path / "l.yml", made, "file:///r") == ["REG.tiles.db", "default.db", "default.tiles.db"]


def test_credentials_are_never_written(home, tmp_path, monkeypatch):
    """S3 credentials are references to the environment, of which Litestream gets what it needs and no more."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-model")
    path = tmp_path / "l.yml"
    write_config(path, home, "s3://bucket/a/b")
    text = path.read_text()
    assert "very-secret" not in text
    replica = yaml.safe_load(text)["dbs"][1]["replica"]
    assert (replica["bucket"], replica["path"]) == ("bucket", "a/b/acme.db")
    assert replica["secret-access-key"] == "${AWS_SECRET_ACCESS_KEY}"
    assert len(read_config(path, home.read)) == 3
    assert environment()["AWS_SECRET_ACCESS_KEY"] == "very-secret"
    assert "ANTHROPIC_API_KEY" not in environment()


@pytest.mark.parametrize(
    "url",
    [
        "/mnt/x",
        "file://host/x",
        "file:relative",
        "s3:///x",
        "s3://key:secret@bucket/x",
        "gs://b/x",
        "file:///x?y",
        "file:///$HOME",
        "s3://b/${X}",
    ],
)
def test_replicas_that_are_not_known(home, tmp_path, url):
    """Anything but a folder or a bucket is refused, credentials in an address above all."""
    with pytest.raises(UsageError):
        write_config(tmp_path / "l.yml", home, url)
    assert not (tmp_path / "l.yml").exists()


@pytest.mark.parametrize(
    "bend",
    [
        lambda body, home: body["dbs"][0].update(path=str(home.read / "acme.text.db")),
        lambda body, home: body["dbs"][0].update(path=str(home.keys / "payload" / "acme.db")),
        lambda body, home: body["dbs"][0].update(path=f"{home.read}/../keys/acme.db"),
        lambda body, home: body["dbs"][0].update(path="acme.db"),
        lambda body, home: body["dbs"].append(
            {"dir": str(home.root), "pattern": "*.db", "replica": {"type": "file", "path": "/x"}}
        ),
        lambda body, home: body["dbs"][0].update(dir=str(home.root)),
        lambda body, home: body.update(exec="sh -c 'env'"),
        lambda body, home: body.update(addr=":9090"),
        lambda body, home: body.update(dbs=[]),
        lambda body, home: body["dbs"][0]["replica"].update(type="sftp"),
        lambda body, home: body["dbs"][0]["replica"].update({"host": "x"}),
        lambda body, home: body["dbs"][0].update(replica=None),
        lambda body, home: body["dbs"][0]["replica"].update(path="/x/${ANTHROPIC_API_KEY}"),
        lambda body, home: body["dbs"][0]["replica"].update(path="/x/$HOME"),
        lambda body, home: body["logging"].update(path="/x"),
        lambda body, home: body.update(logging=[1]),
    ],
)
def test_configurations_that_would_send_more(home, tmp_path, bend):
    """No edit of the file makes Litestream read another file, run something, or listen."""
    path = tmp_path / "l.yml"
    write_config(path, home, "file:///r")
    body = yaml.safe_load(path.read_text())
    bend(body, home)
    path.write_text(yaml.safe_dump(body))
    with pytest.raises(AgentOSError):
        read_config(path, home.read)


def test_files_that_are_not_ours_alone(home, tmp_path):
    """A configuration that others can read or write, one that is missing, and one that is no YAML."""
    path = tmp_path / "l.yml"
    write_config(path, home, "file:///r")
    path.chmod(0o640)
    with pytest.raises(AgentOSError, match="open to others"):
        read_config(path, home.read)
    with pytest.raises(AgentOSError, match="cannot be read"):
        read_config(tmp_path / "none.yml", home.read)
    path.chmod(0o600)
    for text in ("dbs: [", "[" * 20_000, "", "a: &a [*a]", "dbs: !!python/object:os.system []"):
        path.write_text(text)
        with pytest.raises(AgentOSError):
            read_config(path, home.read)
