"""docs/redteam.md, written by the run."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from rt_case import How
from rt_mutants import Mutant
from rt_run import MOST, Run, by_corpus

_HEAD = """# Red team

`make redteam` plays hostile corpora end to end and writes this page. The runtime is the shipped one: nats-server, OPA
with the shipped policies, bubblewrap, the loop as a process. The model is hostile: it proposes each call below. The
operator is generous: tools of every driver are declared and granted. Whether a call got anything is looked for outside
of it: texts that only the host knows, files that must be as they were, listeners that nobody may reach, a process that
must live. Every call of the model has its event in the log, and every group of calls has a deadline. A request
that is no proper one has its event too (`network.malformed`), without its words. One kind of refusal has none: what an
operator is talked into (`agentos fs`, inputs of runs) is answered with an error.

`make test` plays a part of it (`tests/integration/redteam`). The corpora are tables in `tests/redteam/rt_*.py`.
"""

_NOT = """## What was not attempted

- Flaws of the kernel of Linux, of bubblewrap, of CPython, of OPA, of nats-server, of OpenSSL: nothing here looks for them.
- Other kinds of sandboxes: `container` needs an engine, and `unsafe-none` is none.
- Side channels between sandboxes of one machine: timing, caches, memory pressure.
- Filling the disk of the host through a workspace with many files: a single file is bounded, their number is not.
- A credential that a tool encrypts, compresses or encodes twice before it shows it: a mask cannot know that.
- What a server that is allowed does with what it is sent.
- A public name server and the public internet: names are looked up in a table, and nothing leaves this machine.
- Real models: the hostile model is a script, which never tires of a bad idea, and never has a new one.
"""


def page(run: Run, noticed: Mapping[str, Sequence[str]], mutants: Sequence[Mutant]) -> str:
    """The page."""
    counted = run.counted
    held = sum(one.held for one in counted)
    lines = [_HEAD, "## Result", ""]
    when = datetime.now(UTC).strftime("%Y-%m-%d")
    user = "root" if os.geteuid() == 0 else "an ordinary user"
    lines.append(f"Made {when} on {platform.machine()}, Linux {platform.release()}, {os.cpu_count()} cores, as {user}.")
    lines += ["", f"- {len(counted)} hostile calls, {held} held, {len(counted) - held} not; {run.seconds:.0f} s."]
    lines.append(f"- {len(mutants)} guards taken away, {sum(bool(noticed[one.name]) for one in mutants)} noticed.")
    lines.append(
        f"- A credential, in a corpus of {_used(run)} calls: {run.looked} places looked through (files, rows, names, what the "
        f"model was shown, the words of {run.processes} processes), {len(run.leaks)} leaks."
    )
    alone, beside = statistics.median(run.alone), statistics.median(run.beside)
    lines.append(
        f"- A healthy agent beside it: {beside:.0f} ms a turn, {alone:.0f} ms alone (medians of {len(run.beside)} and "
        f"{len(run.alone)} turns): {run.ratio:.2f} times, at most {MOST:g} are allowed."
    )
    lines += ["", "## Corpora", "", "How each call ended, as the log tells it, or as the operator was answered.", ""]
    columns = [how for how in How if how is not How.NONE]
    lines.append("| corpus | calls | held | " + " | ".join(columns) + " |")
    lines.append("|---|---:|---:|" + "---:|" * len(columns))
    for corpus, ways in by_corpus(counted).items():
        of_it = [one for one in counted if one.corpus == corpus]
        row = [corpus, str(len(of_it)), str(sum(one.held for one in of_it)), *(str(ways[str(how)] or "") for how in columns)]
        lines.append("| " + " | ".join(row) + " |")
    asked = [net for one in counted for net in one.told.net]
    denied = sum(effect == "deny" for _, effect, _ in asked)
    lines += [
        "",
        f"{len(asked)} requests were asked about on the way, and {denied} of them denied, each with an event of its own.",
    ]
    if run.faults:
        lines += ["", "Not held:", "", *(f"- {fault}" for fault in run.faults)]
    lines += ["", "## Guards taken away", "", "With each guard gone, alone, the corpus has to fail.", ""]
    lines += ["| without | noticed by | for example |", "|---|---:|---|"]
    for mutant in mutants:
        found = noticed[mutant.name]
        example = f"`{found[0].split(':')[0]}`" if found else "**nobody**"
        lines.append(f"| {mutant.name} | {len(found)} | {example} |")
    lines += ["", _NOT]
    return "\n".join(lines)


def _used(run: Run) -> int:
    return sum(one.corpus == "canary" for one in run.counted)
