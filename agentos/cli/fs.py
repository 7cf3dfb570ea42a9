"""`agentos fs`: the files of workspaces and spaces, who changed them by which decision, and taking that back."""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from agentos.abi.canonical import Json
from agentos.abi.errors import UsageError
from agentos.abi.event import rfc3339
from agentos.cli.command import Facts, call, emit, emit_table, paint, say, show, with_client
from agentos.cli.files import print_bytes
from agentos.cli.render.text import clock, count, plain, short
from agentos.cli.verb import examples

if TYPE_CHECKING:
    from agentos.control.client import Client

group = typer.Typer(
    no_args_is_help=True,
    help="Files of workspaces and shared spaces: look, write, see who changed what, take it back.\n\n"
    "A place is the id of a session, whose workspace is meant, or space/NAME.",
    epilog=examples("agentos fs ls SESSION", "agentos fs log space/reports", "agentos fs undo SESSION"),
    rich_markup_mode=None,
)

Where = Annotated[str, typer.Argument(metavar="PLACE", help="a session, or space/NAME")]
File = Annotated[str, typer.Argument(metavar="PATH", help="the file, from the top of the place")]
Below = Annotated[str | None, typer.Argument(metavar="[PATH]", help="only this file, or what is below this folder")]
At = Annotated[int | None, typer.Option("--at", min=0, metavar="CHANGE", help="as it was after this change")]
Why = Annotated[str, typer.Option("--reason", metavar="TEXT", help="why; stands in the tenant's audit chain")]
Lose = Annotated[bool, typer.Option("--lose", help="also where a file goes for good, as it was too large to be kept")]
Shape = Annotated[Facts, typer.Option("--output", "-o", help="how to print")]

MAX_READ: Final = 1024 * 1024 + 1
"""Most bytes that are read of a file to be written: one more than the runtime takes, so that it says so."""

PAGE: Final = 20
"""Changes that a log shows unless it is told how many."""

_SIGNS: Final = {"+": "green", "-": "red", "@": "cyan"}


def register(app: typer.Typer) -> None:
    """Add the group."""
    app.add_typer(group, name="fs")


@group.command(
    "ls", epilog=examples("agentos fs ls SESSION", "agentos fs ls space/reports drafts", "agentos fs ls SESSION --at 3 -o json")
)
def ls(place: Where, path: Below = None, at: At = None, output: Shape = Facts.TABLE) -> None:
    """List what is in a place, or was after a change."""
    answer = call("fs.list", {"place": place, **_given(path=path, at=at)})

    def table() -> None:
        rows = [[one["mode"], one.get("size", "-"), _name(one)] for one in answer["files"]]
        emit_table(["mode", "bytes", "path"], rows, empty="there is nothing here")
        if answer["more"]:
            say(f"there are more; these are the first {len(rows)}")

    show(answer["files"], output, table)


@group.command(
    "cat",
    epilog=examples(
        "agentos fs cat SESSION out/report.md",
        "agentos fs cat SESSION out/report.md --at 2",
        "agentos fs cat SESSION sha256:… > whole.txt",
    ),
)
def cat(place: Where, path: File, at: At = None) -> None:
    """Print a file as it is, or as it was after a change; or what was kept under a digest, such as a result that was cut.

    On a terminal a file cannot drive it: characters that are not printable are escaped.
    """
    wanted: dict[str, Json] = {"digest": path} if path.startswith("sha256:") else {"path": path, **_given(at=at)}

    async def work(client: Client) -> None:
        part = await client.call("fs.read", {"place": place, **wanted})
        whole = data = base64.b64decode(part["data"])
        while part["more"] and data:
            # By its digest: whoever writes the file meanwhile does not mix his into this one.
            part = await client.call("fs.read", {"place": place, "digest": part["digest"], "offset": len(whole)})
            data = base64.b64decode(part["data"])
            whole += data
        print_bytes(whole)

    with_client(work)


@group.command(
    "write",
    epilog=examples(
        "agentos fs write SESSION notes.md --from notes.md",
        "echo corrected | agentos fs write SESSION out/a.txt --expected sha256:…",
        "agentos fs write space/prices list.csv --from list.csv --expected any --reason 'new prices'",
    ),
)
def write(
    place: Where,
    path: File,
    source: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="what to write, in place of standard input")
    ] = None,
    expected: Annotated[
        str | None, typer.Option("--expected", metavar="SHA256", help="the digest of the file that is replaced, or `any`")
    ] = None,
    label: Annotated[list[str] | None, typer.Option("--label", help="of a space: a label for its readers; repeatable")] = None,
    reason: Why = "",
    output: Shape = Facts.TABLE,
) -> None:
    """Write a file as a whole. Without --expected only a new one is written.

    The agent is told when it next writes the file without having read it again.
    """
    data = _source(source)
    params: dict[str, Json] = {"place": place, "path": path, "data": base64.b64encode(data).decode("ascii")}
    answer = call("fs.write", params | _given(expected=expected, reason=reason or None, labels=list(label or ()) or None))

    def told() -> None:
        if "change" not in answer:
            say(f"{plain(path)} holds that already")
            return
        say(f"wrote {count(len(data), 'byte')} to {plain(path)}, change {answer['change']}; {answer['digest']}")
        say(f"to take it back: agentos fs undo {plain(place)} --change {answer['change']}")

    show(answer, output, told)


@group.command(
    "log",
    epilog=examples("agentos fs log SESSION", "agentos fs log SESSION out/a.md", "agentos fs log space/reports -o json"),
)
def log(
    place: Where,
    path: Below = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=200, help="how many")] = PAGE,
    before: Annotated[int | None, typer.Option("--before", min=1, metavar="CHANGE", help="only those before this one")] = None,
    output: Shape = Facts.TABLE,
) -> None:
    """List changes, the newest first: who made each, by which call, decision and approval, and what it changed."""
    answer = call("fs.log", {"place": place, "limit": limit, **_given(path=path, before=before)})

    def table() -> None:
        rows = [_change(one, shared=place.startswith("space/")) for one in answer["changes"]]
        headers = ["change", "time", "by", "did", "call", "decided", "approved by", "files"]
        emit_table(headers, rows, shrink=("files",), empty="nothing was changed")
        for one in answer["changes"]:
            for note in one.get("notes", ()):
                say(f"change {one['number']}: {plain(note)}")
        if answer["more"]:
            say(f"there are more: --before {answer['changes'][-1]['number']}")

    show(answer["changes"], output, table)


@group.command(
    "diff",
    epilog=examples(
        "agentos fs diff SESSION", "agentos fs diff SESSION 2 5", "agentos fs diff SESSION 4 --path out/report.md -o json"
    ),
)
def diff(
    place: Where,
    start: Annotated[
        int, typer.Argument(metavar="[FROM]", min=0, help="what to compare with: this change, or the beginning")
    ] = 0,
    end: Annotated[
        int | None, typer.Argument(metavar="[TO]", min=0, help="what to compare: this change, or what is there now")
    ] = None,
    path: Annotated[str | None, typer.Option("--path", metavar="PATH", help="only what is at or below this")] = None,
    output: Shape = Facts.TABLE,
) -> int:
    """Show what differs between two changes; exit code 2 if anything does."""
    answer = call("fs.diff", {"place": place, "start": start, **_given(end=end, path=path)})

    def text() -> None:
        for one in answer["differences"]:
            _show_difference(one)
        if answer["more"]:
            say("there is more: name a path")
        if not answer["differences"]:
            say("nothing differs")

    show(answer["differences"], output, text)
    return 2 if answer["differences"] else 0


@group.command(epilog=examples("agentos fs blame SESSION out/report.md", "agentos fs blame space/reports a.md -o json"))
def blame(place: Where, path: File, output: Shape = Facts.TABLE) -> None:
    """Show of each line of a text file which change it came with, and whose that was."""
    answer = call("fs.blame", {"place": place, "path": path})

    def table() -> None:
        width = max((len(_who(one)) for one in answer["changes"].values()), default=0)
        for number, line in enumerate(answer["lines"], 1):
            who = _who(answer["changes"][str(line["change"])])
            emit(f"{line['change']:>4}  {who:<{width}}  {number:>5}  {plain(line['text'].expandtabs())}")
        if "note" in answer:
            say(plain(answer["note"]))

    show(answer, output, table)


@group.command(
    epilog=examples("agentos fs restore SESSION out/a.md --at 2", "agentos fs restore SESSION out --at 0 --reason 'as it came'")
)
def restore(
    place: Where,
    path: File,
    at: Annotated[int, typer.Option("--at", min=0, metavar="CHANGE", help="what it was after this change")],
    expected: Annotated[
        str | None, typer.Option("--expected", metavar="SHA256", help="refuse unless the file that is there has this digest")
    ] = None,
    lose: Lose = False,
    reason: Why = "",
    output: Shape = Facts.TABLE,
) -> None:
    """Make a file or folder what it was after a change. What is there now is kept: that can be taken back."""
    answer = call(
        "fs.restore", {"place": place, "path": path, "at": at, "lose": lose, **_given(expected=expected, reason=reason or None)}
    )

    def told() -> None:
        if "change" not in answer:
            say(f"{plain(path)} is that already")
            return
        say(f"{plain(path)} is what it was after change {at} again, with change {answer['change']}")
        for note in answer.get("notes", ()):
            say(f"but {plain(note)}")
        say(f"to take it back: agentos fs undo {plain(place)} --change {answer['change']}")

    show(answer, output, told)


@group.command(
    epilog=examples(
        "agentos fs undo SESSION",
        "agentos fs undo SESSION --dry-run",
        "agentos fs undo SESSION --change 4 --change 5 --reason 'the wrong customer'",
        "agentos fs undo SESSION --call CALL",
    )
)
def undo(
    place: Where,
    change: Annotated[list[int] | None, typer.Option("--change", min=0, metavar="N", help="only this one; repeatable")] = None,
    call_id: Annotated[
        str | None, typer.Option("--call", metavar="CALL", help="only what this call changed; of a space: SESSION/CALL")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say which changes would be taken back, and leave them")] = False,
    lose: Lose = False,
    reason: Why = "",
    output: Shape = Facts.TABLE,
) -> None:
    """Take changes back, all of a place unless some are named, byte for byte. An undo is a change: it can be undone.

    What somebody else has changed since is not overwritten: the conflict names the files, and nothing is changed.
    """
    params: dict[str, Json] = {"place": place, "dry_run": dry_run, "lose": lose}
    answer = call("fs.undo", params | _given(changes=list(change or ()) or None, call=call_id, reason=reason or None))

    def told() -> None:
        numbers = ", ".join(str(number) for number in sorted(answer["undone"])) or "none"
        if dry_run:
            say(f"changes that would be taken back: {numbers}")
        elif "change" not in answer:
            say("there is nothing to take back")
        else:
            say(f"took back {numbers}, as change {answer['change']}")
            for note in answer.get("notes", ()):
                say(f"but {plain(note)}")
            say(f"to have it again: agentos fs undo {plain(place)} --change {answer['change']}")

    show(answer, output, told)


def _given(**params: Json) -> dict[str, Json]:
    return {name: value for name, value in params.items() if value is not None}


def _name(one: Json) -> str:
    name = plain(one["path"])
    if one["kind"] == "folder":
        return f"{name}/"
    return f"{name} -> {plain(one['target'])}" if one["kind"] == "link" else name


def _who(change: Json) -> str:
    return plain(change["author"]["actor"])


def _change(one: Json, *, shared: bool) -> list[str]:
    """A row of the log. Where several sessions work, a call is told with its session: that is what undo takes it by."""
    author = one["author"]
    call_id = f"{author['session']}/{author['call']}" if shared and "call" in author else author.get("call", "-")
    files = [plain(entry["path"]) for entry in one["entries"]]
    more = one["total"] - len(files)
    undone = f" {', '.join(str(number) for number in one['undoes'])}" if one.get("undoes") else ""
    return [
        str(one["number"]),
        clock(rfc3339(one["at_ms"])),
        _who(one),
        f"{one['op']}{undone}",
        plain(call_id),
        f"event {author['decision']['seq']}" if "decision" in author else "-",
        plain(", ".join(author.get("approvals", ()))) or "-",
        short(", ".join(files) + (f" and {more} more" if more > 0 else ""), 400),
    ]


def _show_difference(one: Json) -> None:
    before, after = one["before"], one["after"]
    if not one["text"] or "note" in one:
        did = "new" if before is None else "gone" if after is None else "changed"
        slash = "/" if (after or before)["kind"] == "folder" else ""
        emit(f"{plain(one['path'])}{slash}: {did}" + (f", {plain(one['note'])}" if "note" in one else ""))
    for line in one["text"].splitlines():
        colour = _SIGNS.get(line[:1])
        emit(paint(plain(line.expandtabs()), fg=colour) if colour else plain(line.expandtabs()))


def _source(source: Path | None) -> bytes:
    if source is None:
        if sys.stdin.isatty():
            say("reading standard input; end it with Ctrl-D")
        return sys.stdin.buffer.read(MAX_READ)
    try:
        with source.open("rb") as file:
            return file.read(MAX_READ)
    except OSError as error:
        raise UsageError(f"--from {source}: {error.strerror}") from error
