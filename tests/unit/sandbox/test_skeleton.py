"""The root folder of sandboxes."""

from __future__ import annotations

from pathlib import Path

from agentos.sandbox.adapters.skeleton import build, point, remove
from agentos.sandbox.inside import Tree


def test_only_what_everybody_may_read_is_copied(tmp_path: Path) -> None:
    """Of the host's /etc there is what programs need, and never what is kept from some of its users."""
    etc = tmp_path / "etc"
    (etc / "ssl" / "private").mkdir(parents=True)
    (etc / "ssl" / "private").chmod(0o700)
    (etc / "ssl" / "private" / "key").write_text("key")
    (etc / "ssl" / "cert.pem").write_text("cert")
    (etc / "ssl" / "hidden.pem").write_text("hidden")
    (etc / "ssl" / "hidden.pem").chmod(0o640)
    (etc / "ssl" / "link").symlink_to("/usr/share/x")
    for name in ("shadow", "passwd", "hosts", "gitconfig", "services"):
        (etc / name).write_text("of the host")
    root = build((Tree("/usr", "/usr"), Tree("/opt/python", "/opt/python")), etc)
    try:
        found = {str(path.relative_to(root / "etc")) for path in (root / "etc").rglob("*")}
        assert {"ssl/cert.pem", "ssl/link", "services", "passwd", "group", "hosts", "resolv.conf"} <= found
        assert not {"shadow", "gitconfig", "ssl/private", "ssl/hidden.pem"} & found
        assert "of the host" not in (root / "etc" / "hosts").read_text()
        assert (root / "etc" / "passwd").readlink() == Path("/run/agentos/passwd")
        assert (root / "etc" / "ssl" / "link").readlink() == Path("/usr/share/x")
        assert root.stat().st_mode & 0o777 == 0o755
        point(root, "/srv/deep/file", folder=False)
        point(root, "/srv/deep/file", folder=False)
        assert (root / "srv" / "deep" / "file").is_file()
    finally:
        remove(root)
    assert not root.exists()
