"""Replication of the read models by Litestream: its configuration, its process while the runtime runs, and the way back.

    names = write_config(path, home, "s3://bucket/agentos")       # agentos backup config
    replication = Litestream(path, home, timer)                   # agentos up --litestream FILE
    await replication.start()

Replicated are read models that hold no payload: a tenant's index (`<tenant>.db`) and the trees (`*.tiles.db`, hashes of headers).
What is read from payloads (`*.text.db`) never is: an erasure could not reach the copies. The configuration is read strictly
before it is used, so that no line added to it sends another file away. Litestream gets the variables that S3 needs and no more of
our environment; it dies with the runtime and is started again when it ends by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import shutil
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import yaml

from agentos.abi.canonical import Json
from agentos.abi.errors import AgentOSError, Unavailable, UsageError
from agentos.boot.home import Home
from agentos.eventlog.adapters import tether
from agentos.eventlog.adapters.private_file import write_private
from agentos.kernel.port import Timer

log = logging.getLogger(__name__)

CREDENTIALS: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ENDPOINT_URL_S3")
"""What Litestream is told of the environment, beside PATH and HOME; the configuration may refer to these only."""

STOP_S: Final = 10.0
"""Seconds in which Litestream may send the last changes when the runtime stops."""

LONGEST_PAUSE_S: Final = 60.0
"""Most seconds until Litestream is started again; the first pause is one second, each next one twice as long."""

STEADY_S: Final = 60.0
"""Seconds after which a run counts as a good one: the next pause is one second again."""

MAX_CONFIG: Final = 1024 * 1024
MAX_LOG: Final = 8 * 1024 * 1024
"""Bytes of Litestream's log that are kept over a start; before the last start, the same again."""

_MEND: Final = "write it again: agentos backup config --replica URL"
_REFERENCE: Final = re.compile(r"\$\{([A-Z0-9_]+)\}")
_DATABASE: Final = re.compile(r"(?:[a-z][a-z0-9-]{0,62}|REG)(?:\.tiles)?\.db", re.ASCII)
_FILE: Final = frozenset({"type", "path"})
_S3: Final = frozenset({"type", "bucket", "path", "region", "endpoint", "access-key-id", "secret-access-key"})


def databases(home: Home) -> list[str]:
    """The names of the read models of `home` that may be replicated, sorted; those of a fresh home where there is none yet."""
    found = sorted(path.name for path in home.read.glob("*.db") if _DATABASE.fullmatch(path.name))
    return found or ["REG.tiles.db", "default.db", "default.tiles.db"]


def write_config(path: Path, home: Home, replica: str) -> list[str]:
    """Write the configuration that replicates `home` to `replica`; the databases' names. Raises UsageError, AgentOSError."""
    names = databases(home)
    entries = [{"path": str(home.read.absolute() / name), "replica": _replica(replica, name)} for name in names]
    body = {"logging": {"level": "info", "type": "text", "stderr": True}, "dbs": entries}
    head = "# Written by agentos backup config. Credentials come from the environment.\n"
    try:
        write_private(path, head + yaml.safe_dump(body, sort_keys=False, width=1000))
    except OSError as error:
        raise AgentOSError(f"the configuration cannot be written: {error.strerror}", where=str(path)) from error
    return names


def read_config(path: Path, folder: Path | None) -> list[Path]:
    """The databases that the configuration `path` replicates, all of them in `folder` (None: wherever, as of an old home).

    Raises AgentOSError for anything that `write_config` would not write.
    """
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            text = file.read(MAX_CONFIG + 1).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AgentOSError(f"the configuration cannot be read: {error}", where=str(path), mend=_MEND) from error
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise AgentOSError("the configuration is open to others, or somebody else's", where=str(path), mend=f"chmod 600 {path}")
    try:
        return _databases(text, folder)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, yaml.YAMLError) as error:
        said = f"the configuration is not as agentos writes it: {error}"
        raise AgentOSError(said, where=str(path), mend=_MEND) from error


def find_litestream() -> Path:
    """The program of the extra `litestream`, beside our Python, else the first on PATH. Raises Unavailable."""
    beside = Path(sys.executable).with_name("litestream")
    found = str(beside) if beside.is_file() else shutil.which("litestream")
    if found is None:
        mend = "install it: pip install 'agentos[litestream]'"
        raise Unavailable("there is no litestream beside Python nor on PATH", mend=mend)
    return Path(found).absolute()


def environment() -> dict[str, str]:
    """What Litestream gets of our environment."""
    return {name: os.environ[name] for name in ("PATH", "HOME", *CREDENTIALS) if name in os.environ}


class Litestream:
    """The process, supervised. `start` it when the databases are open; `stop` it after they were closed."""

    def __init__(self, config: Path, home: Home, timer: Timer) -> None:
        self.config = config
        self._home = home
        self._timer = timer
        self._binary = find_litestream()
        self._databases = read_config(config, home.read)
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._problem: str | None = None
        self._log = home.log.with_name("litestream.log")

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return None if self._process is None or self._process.returncode is not None else self._process.pid

    @property
    def state(self) -> str:
        """One line for `status`."""
        if self.pid is None:
            return f"not running: {self._problem or 'it has not begun yet'}"
        return f"{len(self._databases)} read models, pid {self.pid}"

    def warnings(self) -> list[str]:
        """What `status` has to say."""
        found = [f"litestream: {self._problem}; see {self._log}"] if self.pid is None and self._problem else []
        known = {path.name for path in self._databases}
        missing = sorted(set(databases(self._home)) - known)
        if missing:
            found.append(f"litestream: {', '.join(missing)} not replicated: agentos backup config, then start again")
        return found

    async def start(self) -> None:
        """Begin. Comes back at once."""
        self._task = asyncio.create_task(self._run(), name="litestream")

    async def stop(self) -> None:
        """End it, after it has sent what it still has."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _run(self) -> None:
        pause = 1.0
        while True:
            begun = self._timer.monotonic_us()
            try:
                self._process = process = await self._spawn()
            except (OSError, AgentOSError) as error:
                self._problem = f"it cannot be started: {error}"
            else:
                log.info("litestream runs, pid %d", process.pid)
                try:
                    status = await process.wait()
                finally:
                    await self._end(process)
                self._problem = f"it ended with status {status}: {self._last_line()}"
            if self._timer.monotonic_us() - begun > STEADY_S * 1e6:
                pause = 1.0
            log.warning("litestream: %s; starting it again in %.0f s", self._problem, pause)
            await self._timer.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _spawn(self) -> asyncio.subprocess.Process:
        # Read again: the file may have been changed since the runtime began.
        self._databases = read_config(self.config, self._home.read)
        if self._log.exists() and self._log.stat().st_size > MAX_LOG:
            self._log.replace(self._log.with_suffix(".log.1"))
        with os.fdopen(os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600), "ab") as output:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", tether.__file__, str(os.getpid())),
                *(str(self._binary), "replicate", "-config", str(self.config)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment(),
                cwd=self._home.read,
                umask=0o077,
                start_new_session=True,  # Ctrl-C in a terminal is for the runtime, which then stops it in order
            )

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            log.warning("litestream has not ended after %.0f s: killed", STOP_S)
            process.kill()
            await process.wait()

    def _last_line(self) -> str:
        with self._log.open("rb") as file:
            file.seek(max(0, self._log.stat().st_size - 4096))
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1][:400] if lines else "it said nothing"


async def restore_database(config: Path, database: Path, target: Path) -> str | None:
    """Bring `database` back from its replica into the new file `target` (mode 0600); None, or why there is none.

    Raises Unavailable without the program.
    """
    process = await asyncio.create_subprocess_exec(
        *(str(find_litestream()), "restore", "-config", str(config), "-o", str(target), "-integrity-check", "full"),
        str(database),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
        umask=0o077,
    )
    try:
        _, said = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode == 0:
        await asyncio.to_thread(target.chmod, 0o600)
        return None
    await asyncio.to_thread(_remove, target)
    lines = said.decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:400] if lines else f"litestream ended with status {process.returncode}"


def _remove(target: Path) -> None:
    for part in target.parent.glob(f"{target.name}*"):
        part.unlink()


def _replica(url: str, name: str) -> dict[str, Json]:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UsageError(f"{url!r} is no replica", mend="write file:///path or s3://bucket/prefix") from error
    path = unquote(parts.path)
    plain = not (parts.query or parts.fragment or "$" in url or "@" in parts.netloc) and path.isprintable()
    if plain and parts.scheme == "file" and not parts.netloc and path.startswith("/"):
        return {"type": "file", "path": f"{path.rstrip('/')}/{name}"}
    if plain and parts.scheme == "s3" and parts.netloc:
        prefix = path.strip("/")
        return {
            "type": "s3",
            "bucket": parts.netloc,
            "path": f"{prefix}/{name}" if prefix else name,
            "region": "${AWS_REGION}",
            "endpoint": "${AWS_ENDPOINT_URL_S3}",
            "access-key-id": "${AWS_ACCESS_KEY_ID}",
            "secret-access-key": "${AWS_SECRET_ACCESS_KEY}",
        }
    raise UsageError(f"{url!r} is no replica that is known here", mend="write file:///path or s3://bucket/prefix, no credentials")


def _databases(text: str, folder: Path | None) -> list[Path]:
    """See `read_config`. Raises ValueError and what odd YAML raises."""
    names = _REFERENCE.findall(text)
    if set(names) - set(CREDENTIALS) or text.count("$") != len(names):
        raise ValueError("it refers to variables that are not for Litestream")
    if len(text) > MAX_CONFIG or text.count("[") + text.count("{") + text.count("&") > 10_000:
        raise ValueError("it is too large")
    body = yaml.safe_load(text)
    if not isinstance(body, dict) or body.keys() - {"logging", "dbs"} or not isinstance(body["dbs"], list) or not body["dbs"]:
        raise ValueError("expected logging and dbs")
    if body.get("logging", {}).keys() - {"level", "type", "stderr"}:
        raise ValueError("logging has other fields than level, type and stderr")
    found = []
    for entry in body["dbs"]:
        path, replica = Path(entry["path"]), entry["replica"]
        if entry.keys() != {"path", "replica"} or not path.is_absolute() or ".." in path.parts:
            raise ValueError(f"a database has other fields than path and replica: {entry['path']!r}")
        if _DATABASE.fullmatch(path.name) is None or (folder is not None and path.parent.resolve() != folder.resolve()):
            raise ValueError(f"{path} is no read model of this home that may be replicated")
        allowed = {"file": _FILE, "s3": _S3}[replica["type"]]
        if replica.keys() - allowed or not all(isinstance(value, str) for value in replica.values()):
            raise ValueError(f"the replica of {path.name} has other fields than {', '.join(sorted(allowed))}")
        found.append(path)
    return found


def named(paths: Sequence[Path]) -> dict[str, Path]:
    """The indexes among `paths`, by tenant: `<tenant>.db`."""
    return {path.stem: path for path in paths if "." not in path.stem}
