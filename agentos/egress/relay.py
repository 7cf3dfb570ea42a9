"""The inner end of the way out: a program of its own, started in a sandbox in front of the command that is to run there.

    python -I -S relay.py --socket /run/agentos/egress.sock --port 3128 -- COMMAND WORD…

It listens on 127.0.0.1, passes bytes on to the socket and back, and understands nothing of them. The command is its child with
the same standard streams, which the relay itself lets go of; signals are passed on, orphans are reaped, and the relay ends with
the command: by its exit code, or 128 and the number of the signal that ended it; 127 and 126 when there is no such program, or
none that can be executed. Port 0 takes a free one, and `http://127.0.0.1:0` in the environment then names it.

It is started before every command, so it imports what is compiled into Python and nothing else: `socket`, `signal` and `typing`
alone would take longer than all that is done here.
"""

import _signal  # type: ignore[import-not-found]
import _socket
import os
import select
import sys

CHUNK = 65_536
MOST = 128  # connections at one time
PASSED_ON = tuple(
    getattr(_signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGCONT", "SIGWINCH")
)
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
USAGE = "relay: usage: relay.py --socket PATH --port PORT -- COMMAND [WORD...]\n"
GONE = select.POLLERR | select.POLLHUP


class End:
    """One end of a connection: a socket, and what waits to be written to it."""

    __slots__ = ("held", "link", "number", "other", "silent", "watched")

    def __init__(self, link: _socket.socket) -> None:
        self.link = link
        self.number = link.fileno()
        self.held = b""
        self.silent = False
        """Whether it has said all that it will say."""
        self.other = self
        self.watched = False

    def joined(self, other: "End") -> None:
        """What one says is for the other."""
        self.other, other.other = other, self

    def read(self) -> None:
        """Take some of what it says for the other; only while nothing waits there. Raises OSError."""
        try:
            data = self.link.recv(CHUNK)
        except BlockingIOError:
            return
        if data:
            self.other.held = data
            self.other.write()
        else:
            self.silent = True
            self.other.link.shutdown(_socket.SHUT_WR)

    def write(self) -> None:
        """Send of what waits as much as it takes. Raises OSError."""
        try:
            self.held = self.held[self.link.send(self.held) :]
        except BlockingIOError:
            return

    def wanted(self) -> int:
        """What to wait for: room for what is held, and what it says unless that could not be passed on."""
        reading = 0 if self.silent or self.other.held else select.POLLIN
        return reading | (select.POLLOUT if self.held else 0)


class Relay:
    """All connections, and the one child."""

    def __init__(self, path: str, listener: _socket.socket, wakeup: int) -> None:
        self._path = path
        self._listener = listener
        self._wakeup = wakeup
        self._poll = select.poll()
        self._poll.register(listener.fileno(), select.POLLIN)
        self._poll.register(wakeup, select.POLLIN)
        self._ends: dict[int, End] = {}

    def run(self, child: int) -> int:
        """Pass bytes on until `child` has ended; its exit code."""
        while True:
            status = reaped(child)
            if status is not None:
                return status
            for number, events in self._poll.poll():
                if number == self._listener.fileno():
                    self._accept()
                elif number == self._wakeup:
                    self._signals(child)
                elif number in self._ends:  # not closed since, with its other end
                    self._move(self._ends[number], events)

    def _signals(self, child: int) -> None:
        for number in os.read(self._wakeup, 256):
            if number != _signal.SIGCHLD:
                os.kill(child, number)  # it was not reaped yet, so this is still its number

    def _accept(self) -> None:
        try:
            # What `socket.accept` does; the descriptor is not inherited.
            inner = _socket.socket(fileno=self._listener._accept()[0])  # type: ignore[attr-defined]  # noqa: SLF001
        except OSError:
            return  # it has left already, or there are no more descriptors
        outer = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            inner.setblocking(False)
            inner.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
            outer.setblocking(False)
            outer.connect(self._path)
        except OSError:
            inner.close()
            outer.close()
            return
        one, other = End(inner), End(outer)
        one.joined(other)
        for end in (one, other):
            self._ends[end.number] = end
            self._watch(end)
        if len(self._ends) >= 2 * MOST:
            self._poll.unregister(self._listener.fileno())

    def _move(self, end: End, events: int) -> None:
        """Pass on what can be passed on, and wait for what cannot."""
        other = end.other
        try:
            if end.held:
                end.write()
            if events & (select.POLLIN | GONE) and end.wanted() & select.POLLIN:
                end.read()
        except OSError:
            self._close(end)
            return
        if end.silent and other.silent and not end.held and not other.held:
            self._close(end)
            return
        self._watch(end)
        self._watch(other)

    def _watch(self, end: End) -> None:
        wanted = end.wanted()
        if wanted:
            self._poll.register(end.number, wanted)
        elif end.watched:
            # Left in, it would be reported for ever once its other side is gone.
            self._poll.unregister(end.number)
        end.watched = bool(wanted)

    def _close(self, end: End) -> None:
        if len(self._ends) >= 2 * MOST:
            self._poll.register(self._listener.fileno(), select.POLLIN)
        for one in (end, end.other):
            if one.watched:
                self._poll.unregister(one.number)
            del self._ends[one.number]
            one.link.close()


def main(words: list[str]) -> int:
    """Run the relay with these words of its command line; the exit code."""
    if len(words) < 6 or words[0:5:2] != ["--socket", "--port", "--"] or not words[3].isdecimal():
        sys.stderr.write(USAGE)
        return 64
    path, port, command = words[1], int(words[3]), words[5:]
    listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    try:
        listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(MOST)
    except (OSError, OverflowError) as error:
        sys.stderr.write(f"relay: cannot listen on 127.0.0.1:{port}: {error}\n")
        return 126
    listener.setblocking(False)
    if port == 0:
        name_port(listener.getsockname()[1])
    # A signal that comes before there is a child waits in the pipe, and is passed on then.
    wakeup, told = os.pipe()
    os.set_blocking(wakeup, False)
    os.set_blocking(told, False)
    _signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    for number in (*PASSED_ON, _signal.SIGCHLD):
        _signal.signal(number, noted)
    try:
        # What Python ignores, the command must not: a program that writes into a closed pipe is to end.
        child = os.posix_spawnp(command[0], command, os.environ, setsigdef=[_signal.SIGPIPE, _signal.SIGXFSZ])
    except OSError as error:
        sys.stderr.write(f"relay: {command[0]}: {error.strerror}\n")
        return 127 if isinstance(error, FileNotFoundError) else 126
    let_go()
    return Relay(path, listener, wakeup).run(child)


def noted(_number: int, _frame: object) -> None:
    """The wake-up pipe has it."""


def let_go() -> None:
    """Give up the standard streams: whoever reads them waits for their end, which is the command's to make."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    if nothing > 2:
        os.close(nothing)


def name_port(port: int) -> None:
    """Put the port into the variables that say where the proxy is."""
    for name in PROXIES:
        if os.environ.get(name) == "http://127.0.0.1:0":
            os.environ[name] = f"http://127.0.0.1:{port}"


def reaped(child: int) -> "int | None":
    """Take note of all who have ended; the exit code of `child` if it is among them."""
    code = None
    while True:
        try:
            found, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if found == 0:
            return code
        if found == child:
            code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stderr.flush()
    # Nothing is left to tidy up that the end of the process does not, and this is the faster end.
    os._exit(code)
