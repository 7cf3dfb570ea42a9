"""Agents that work on files in every way there is, and a tree told as one digest."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

MESS = r"""
import os, sys
os.makedirs("made/empty", mode=0o755)
open("made/data.bin", "wb").write(bytes(range(256)))
os.chmod("made/data.bin", 0o640)
os.symlink("data.bin", "made/link")
os.symlink("/etc/shadow", "made/out")
open("made/run.sh", "w").write("#!/bin/sh\necho hello\n")
os.chmod("made/run.sh", 0o4755)
open("made/\x1b[2J\u202e\x07evil.txt", "w").write("\x1b]0;owned\x07 first\nsecond\x1b[31m\u2028-third\n")
os.remove("input/old.txt")
os.chmod("input/keep", 0o500)
os.mkfifo("made/pipe")
print("done")
"""
"""What a program leaves that is not tidy: links, modes, an empty folder, a FIFO, names and contents that drive terminals."""

HUGE = 'f = open("huge.bin", "wb"); f.truncate(65 * 1024 * 1024); f.close()'
"""One file that is too large to be kept."""


def _tool(name: str, effect: str, driver: str, more: str = "") -> str:
    return f"""---
apiVersion: agentos/v1
kind: Tool
metadata: {{name: {name}}}
spec: {{description: "{name}", effect: {effect}, {more}driver: {driver}}}
"""


def _agent(name: str, tools: str, rules: str) -> str:
    return f"""---
apiVersion: agentos/v1
kind: Model
metadata: {{name: {name}-model}}
spec:
  provider: scripted
  scripted:
    play:
      name: {name}
      rules:
{rules}
---
apiVersion: agentos/v1
kind: Agent
metadata: {{name: {name}}}
spec:
  instructions: Work on files.
  model: {name}-model
  tools: [{tools}]
  governance: {{owner: tests, purpose: testing, risk: minimal}}
---
apiVersion: agentos/v1
kind: ToolGrant
metadata: {{name: {name}-works}}
spec: {{agents: [{name}], tools: [{tools}]}}
"""


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


_NOTHING = "inputSchema: {type: object, additionalProperties: false}, "
_FILE = "inputSchema: {type: object, required: [file], additionalProperties: false, properties: {file: {type: string}}}, "

DECLARED = (
    """apiVersion: agentos/v1
kind: Tenant
metadata: {name: default}
spec: {description: Tests, spaces: [{name: board, description: What all of them see.}]}
"""
    + _tool("write", "write", "{builtin: {primitive: write}}")
    + _tool("read", "read", "{builtin: {primitive: read}}")
    + _tool("propose", "write", "{builtin: {primitive: propose}}")
    + _tool("wait", "read", "{builtin: {primitive: wait}}", "timeoutSeconds: 600, ")
    + _tool("post", "write", "{builtin: {primitive: write, space: board}}")
    + _tool("look", "read", "{builtin: {primitive: read, space: board}}")
    + _tool("sort", "write", "{exec: {command: [sort, -o, {arg: file}, --, {arg: file}], workspaceArgs: [file]}}", _FILE)
    + _tool("long", "read", "{exec: {command: [seq, '1', '2000']}}", f"outputBytes: 1024, {_NOTHING}")
    + _tool("mess", "write", f"{{exec: {{command: [python3, -I, -c, {_quoted(MESS)}]}}}}", _NOTHING)
    + _tool("huge", "write", f"{{exec: {{command: [python3, -I, -c, {_quoted(HUGE)}]}}}}", _NOTHING)
    + _agent(
        "scribe",
        "write, sort, read, propose",
        r"""        - id: write
          when: "turn == 1"
          call:
            - {tool: write, args: {path: out/letter.md, content: "Dear customer,\nwe are sorry.\nRegards\n"}}
            - {tool: write, args: {path: out/list.txt, content: "pear\napple\nfig\n"}}
        - {id: sort, when: "turn == 2", call: [{tool: sort, args: {file: out/list.txt}}]}
        - {id: look, when: "turn == 3", call: [{tool: read, args: {path: out/letter.md}}]}
        - id: propose
          when: "turn == 4"
          call:
            - tool: propose
              args:
                path: out/letter.md
                content: "Dear customer,\nwe are very sorry.\nRegards\n"
                expected: "{{ (results | last).data.digest }}"
        - {id: done, when: "true", say: "{{ (results | last).content }}"}""",
    )
    + _agent(
        "untidy",
        "mess, huge, long",
        r"""        - {id: mess, when: "goal == 'make a mess' and not results", call: [{tool: mess, args: {}}]}
        - {id: huge, when: "goal == 'fill the disk' and not results", call: [{tool: huge, args: {}}]}
        - {id: long, when: "goal == 'talk' and not results", call: [{tool: long, args: {}}]}
        - {id: done, when: "true", say: "{{ (results | last).content }}"}""",
    )
    + _agent(
        "patient",
        "write, read, wait",
        r"""        - {id: mine, when: "turn == 1", call: [{tool: write, args: {path: a.txt, content: "of the agent\n"}}]}
        - {id: wait, when: "turn == 2", call: [{tool: wait, args: {signal: go}}]}
        - {id: again, when: "turn == 3", call: [{tool: write, args: {path: a.txt, content: "of the agent again\n"}}]}
        - {id: read, when: "turn == 4", call: [{tool: read, args: {path: a.txt}}]}
        - {id: over, when: "turn == 5", call: [{tool: write, args: {path: a.txt, content: "of the agent at last\n"}}]}
        - {id: done, when: "true", say: "{{ results[2].content }} | {{ results[3].content }} | {{ results[4].content }}"}""",
    )
    + _agent(
        "poster",
        "post, look",
        r"""        - id: post
          when: "turn == 1"
          call: [{tool: post, args: {path: "{{ goal }}", content: "from {{ goal }}\n"}}]
        - {id: look, when: "turn == 2", call: [{tool: look, args: {path: first.txt}}]}
        - {id: done, when: "true", say: "{{ (results | last).content }}"}""",
    )
)


def tree_digest(root: Path) -> str:
    """One digest of all that an undo restores below `root`: names, kinds, permissions, contents, targets of links."""
    found = []
    for path in sorted(root.rglob("*"), key=os.fsencode):
        status = path.lstat()
        told = [os.fsencode(path.relative_to(root)), oct(stat.S_IFMT(status.st_mode)).encode()]
        if stat.S_ISLNK(status.st_mode):
            told.append(os.fsencode(path.readlink()))
        elif stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode):
            told.append(oct(status.st_mode & 0o1777).encode())
        if stat.S_ISREG(status.st_mode):
            told.append(hashlib.sha256(path.read_bytes()).hexdigest().encode())
        found.append(b"\0".join(told))
    return hashlib.sha256(b"\1".join(found)).hexdigest()
