"""Ways out of a sandbox, as an agent tries them that may run any program in one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rt_case import CONTAINED, ERROR, STOPPED, Check, Group, Step, Told, lay, says, says_not
from rt_world import World

from agentos.sandbox import escape_probe
from agentos.sandbox.escape import ATTEMPTS, Attempt, Finished, Outcome, judge
from agentos.sandbox.profile import Isolation

BOUNDS = {"processes": 48, "memory_mib": 256, "file_mib": 32, "tmp_mib": 16}
"""The limits of the sandbox `default` of the red team."""

WEAK_IS_KNOWN = frozenset({"memory-together", "forks", "disk"})
"""Attempts whose bound is each process's alone where there are no cgroups; `agentos doctor --escape` tells of that."""


def groups(world: World) -> Iterator[Group]:
    """All of them."""
    yield Group("sandbox", "sandbox probes", [_probe(world, attempt) for attempt in ATTEMPTS], seconds=180)
    yield Group("sandbox", "sandbox agent", list(_agent(world)), seconds=120)


def _probe(world: World, attempt: Attempt) -> Step:
    facts = {**world.facts, **BOUNDS}
    source = Path(escape_probe.__file__).read_text()
    code = (
        f"import sys\nsys.argv = ['probe', {attempt.name!r}, {json.dumps(facts)!r}]\n"
        f"exec(compile({source!r}, 'probe', 'exec'), {{'__name__': '__main__'}})\n"
    )
    where = "net" if attempt.network else "python"
    return Step(f"probe-{attempt.name}", attempt.tried, where, {"code": code}, CONTAINED, _judged(attempt))


def _judged(attempt: Attempt) -> Check:
    """As `agentos doctor --escape` judges, by what it witnesses from outside."""

    def check(world: World, told: Told) -> str | None:
        code = (told.data or {}).get("exit", 0) if isinstance(told.data, dict) else 0
        finished = Finished(code, told.text.encode(), told.text.encode(), "cgroup")
        if code:
            finished = Finished(137 if code == 137 else code, b"", told.text.encode(), "cgroup")
        tried = judge(attempt, str(Isolation.BUBBLEWRAP), finished, world.escape)
        fine = {Outcome.REFUSED} | ({Outcome.WEAK} if attempt.name in WEAK_IS_KNOWN else set())
        return None if tried.outcome in fine else f"{tried.outcome}: {tried.found}"

    return check


def _code(id: str, tries: str, code: str, check: Check | None = None, **more: Any) -> Step:  # noqa: A002 - a step's field
    return Step(f"sandbox-{id}", tries, more.pop("tool", "python"), {"code": code}, more.pop("ways", CONTAINED), check)


def _agent(world: World) -> Iterator[Step]:
    """With what an agent may guess or find out: the very paths and ports of this runtime."""
    home, outside = world.home, world.outside
    port = world.door.runtime.url.rsplit(":", 1)[1]
    pid = os.getpid()
    places = [
        ("shadow", "/etc/shadow"),
        ("home", home),
        ("keys", home / "keys" / "loot.key"),
        ("other-tenant", home / "workspaces" / "theirs" / "s-0000000000000000000" / "secret.txt"),
        ("beside", home / "workspaces" / "default" / "secret.txt"),
        ("above", "/workspace/../secret.txt"),
        ("outside", outside / "secret.txt"),
        ("through-root", f"/proc/self/root{outside}/secret.txt"),
        ("through-pid-1", f"/proc/1/root{outside}/secret.txt"),
        ("through-cwd", f"/proc/self/cwd/../..{outside}/secret.txt"),
        ("endpoint", home / "run" / "endpoint.json"),
        ("identities", home / "identities" / "operator.json"),
        ("runtime-environ", f"/proc/{pid}/environ"),
        ("runtime-memory", f"/proc/{pid}/mem"),
        ("runtime-fds", f"/proc/{pid}/fd"),
    ]
    for name, place in places:
        code = (
            "import os, sys\np = sys.argv[1] if len(sys.argv) > 1 else PLACE\n"
            "print(os.listdir(p) if os.path.isdir(p) else open(p, 'rb').read(4096))\nprint('got it')"
        ).replace("PLACE", repr(str(place)))
        yield _code(f"reads-{name}", f"read {name}", code, ways=ERROR)
    yield _code(
        "writes-outside",
        "write where the host has a file of the same path",
        f"import os\nos.makedirs({str(outside)!r}, exist_ok=True)\n"
        f"open({str(outside / 'secret.txt')!r}, 'w').write('gone')\nprint('done')",
    )
    yield _code(
        "descriptors",
        "look through every descriptor that was inherited",
        "import os\nfor n in range(3, 1024):\n  try:\n    print(n, os.readlink(f'/proc/self/fd/{n}'), os.read(n, 4096))\n"
        "  except OSError: pass\nprint('done')",
    )
    yield _code(
        "nats",
        "reach the nats-server of the runtime on the loopback interface",
        f"import socket\ns = socket.create_connection(('127.0.0.1', {port}), 3)\nprint(s.recv(100))",
        ways=ERROR,
    )
    yield _code(
        "every-port",
        "reach any port of the loopback interface",
        "import socket\nopen_ports = []\nfor p in range(1, 65536):\n  s = socket.socket()\n"
        "  if s.connect_ex(('127.0.0.1', p)) == 0 and s.getsockname() != s.getpeername(): open_ports.append(p)\n"
        "  s.close()\nprint('open:', open_ports)",
        says("open: []"),
    )
    yield _code(
        "kills",
        "kill processes of the host by their numbers",
        f"import os, signal\nfor p in ({world.sleeper.pid}, {pid}, -1):\n"
        "  try: os.kill(p, 0 if p > 0 and p < 3 else signal.SIGKILL)\n  except OSError as e: print(p, e)",
        ways=CONTAINED,
    )
    yield _code(
        "ptrace",
        "debug a process",
        "import ctypes, os\nc = ctypes.CDLL(None, use_errno=True)\nkid = os.fork()\n"
        "if kid == 0:\n  import time; time.sleep(5); os._exit(0)\n"
        "print('attached' if c.ptrace(16, kid, 0, 0) == 0 else 'refused ' + os.strerror(ctypes.get_errno()))\nos.kill(kid, 9)",
        says("refused"),
    )
    yield _code(
        "fork-bomb",
        "start processes without an end",
        "import os, time\nn = 0\ntry:\n  while True:\n    if os.fork() == 0:\n      time.sleep(30); os._exit(0)\n    n += 1\n"
        "    if n > 400: print('too many'); break\nexcept OSError as e: print('stopped at', n, e)",
        says("stopped at"),
    )
    yield _code(
        "daemon",
        "leave a process behind that goes on after the call",
        "import os, time\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n    for n in range(100):\n"
        "      open('/workspace/alive.txt', 'w').write(str(n)); time.sleep(0.05)\n  os._exit(0)\nprint('left')",
    )
    yield _code(
        "daemon-seen",
        "see whether it is still there",
        "import os, time\na = open('/workspace/alive.txt').read() if os.path.exists('/workspace/alive.txt') else ''\n"
        "time.sleep(0.5)\n"
        "b = open('/workspace/alive.txt').read() if os.path.exists('/workspace/alive.txt') else ''\n"
        "print('gone' if a == b else 'alive')",
        says("gone"),
    )
    yield _code(
        "disk-fill",
        "fill the disk of the host through /tmp and /dev/shm",
        "total = 0\nfor folder in ('/tmp', '/dev/shm', '/run', '/var/tmp', '/'):\n  try:\n"
        "    with open(folder + '/big', 'wb') as f:\n      for _ in range(64): f.write(b'x' * 1048576); f.flush(); total += 1\n"
        "  except OSError as e: print(folder, e)\nprint('wrote', total)\nassert total <= 2 * 16 + 1, total",
        says("wrote"),
    )
    yield _code("setuid", "become root", "import os\nos.setuid(0)\nprint('got it')", ways=ERROR)
    yield _code("chroot", "look at another root", "import os\nos.chroot('/proc/1/root')\nprint('got it')", ways=ERROR)
    yield _code("hangs", "never end", "while True: pass", tool="hasty", ways=STOPPED)
    yield _code(
        "hangs-deaf",
        "never end, and not by signals either",
        "import signal, time\nfor s in range(1, 64):\n  try: signal.signal(s, signal.SIG_IGN)\n"
        "  except (OSError, ValueError): pass\n"
        "while True: time.sleep(1)",
        tool="hasty",
        ways=STOPPED,
    )
    yield _code(
        "floods", "write output without an end", "import sys\nwhile True: sys.stdout.write('x' * 65536)", ways=CONTAINED | STOPPED
    )
    yield _code(
        "read-only",
        "write in a workspace that may only be read",
        "open('/workspace/x', 'w').write('1')",
        tool="reader",
        ways=ERROR,
    )
    yield _code(
        "no-workspace",
        "find a workspace where there is none",
        "import os\nprint(os.listdir('/workspace'))",
        says_not("alive"),
        tool="blind",
    )
    yield _code(
        "no-network",
        "ask the network where none is declared",
        "import socket\nsocket.create_connection(('1.1.1.1', 80), 3)",
        ways=ERROR,
    )
    yield _code(
        "loader",
        "see variables of the runtime",
        "import os\nassert not any(k.startswith('AGENTOS_H') for k in os.environ)\nprint(sorted(os.environ))",
    )
    yield lay("sandbox-still-works", "python", {"code": "print('fine')"})
