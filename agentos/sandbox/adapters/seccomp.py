"""The system call filter of a sandbox, as a BPF program of libseccomp.

It refuses what ordinary programs do not need and what leads, or led, out of namespaces: tracing and reading other processes,
mounts, new namespaces, keys, BPF, modules, clocks, old and odd address families, asynchronous submission queues that a filter
cannot see into, pushing characters into a terminal. The rest is let through: interpreters, compilers, browsers and version
control must work. Whoever speaks another architecture's system calls is killed.

The filter of a process that is to have its pipe and nothing else goes further: who makes a socket is killed, with all of its
threads. Unix sockets are refused instead (the C library tries one when it looks for the name of a user), and pairs of them stay:
event loops wake themselves with one, and without `connect` and addresses it leads nowhere.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import tempfile
from typing import TYPE_CHECKING, Final

from agentos.sandbox.port import SandboxUnavailable

if TYPE_CHECKING:
    from pyseccomp import SyscallFilter

_MEND: Final = "install libseccomp (Debian: libseccomp2) and the Python package pyseccomp"

_CLONE_NEW: Final = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET; `clone` knows no CLONE_NEWTIME."""

_TIOCSTI: Final = 0x5412
_TIOCLINUX: Final = 0x541C
_LOW: Final = 0xFFFFFFFF

_FAMILIES: Final = frozenset({1, 2, 10, 16})
"""AF_UNIX, AF_INET, AF_INET6 and AF_NETLINK, of which only NETLINK_ROUTE: what `getaddrinfo` asks for the addresses of links."""

_PERSONALITIES: Final = frozenset({3, 17, 18})
"""Bits of `personality` that may be set: PER_LINUX32's, UNAME26, ADDR_NO_RANDOMIZE; and all 32, which only asks."""

# By name; the number is for a libseccomp older than the system call. From 424 on they are the same on all architectures.
_REFUSED: Final[dict[str, int | None]] = dict.fromkeys(
    (
        "_sysctl",
        "acct",
        "add_key",
        "adjtimex",
        "afs_syscall",
        "bpf",
        "clock_adjtime",
        "clock_settime",
        "create_module",
        "delete_module",
        "fanotify_init",
        "finit_module",
        "get_kernel_syms",
        "init_module",
        "ioperm",
        "iopl",
        "kcmp",
        "kexec_file_load",
        "kexec_load",
        "keyctl",
        "lookup_dcookie",
        "migrate_pages",
        "modify_ldt",
        "mount",
        "move_pages",
        "name_to_handle_at",
        "nfsservctl",
        "open_by_handle_at",
        "perf_event_open",
        "pivot_root",
        "process_vm_readv",
        "process_vm_writev",
        "ptrace",
        "query_module",
        "quotactl",
        "reboot",
        "request_key",
        "setdomainname",
        "sethostname",
        "setns",
        "settimeofday",
        "stime",
        "swapoff",
        "swapon",
        "sysfs",
        "syslog",
        "umount",
        "umount2",
        "unshare",
        "uselib",
        "userfaultfd",
        "ustat",
        "vhangup",
        "vm86",
        "vm86old",
        "vserver",
    )
) | {
    "fsconfig": 431,
    "fsmount": 432,
    "fsopen": 430,
    "fspick": 433,
    "listmount": 458,
    "mount_setattr": 442,
    "move_mount": 429,
    "open_tree": 428,
    "open_tree_attr": 467,
    "pidfd_getfd": 438,
    "process_madvise": 440,
    "quotactl_fd": 443,
    "statmount": 457,
}

# Programs that find these missing take another way, and those that find them refused may not.
_MISSING: Final[dict[str, int | None]] = {
    "clone3": 435,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "io_uring_setup": 425,
}


_UNIX: Final = 1
_DATAGRAMS: Final = 2
"""SOCK_DGRAM: one of a pair of them can send to any other."""

_ADDRESSING: Final = ("accept", "accept4", "bind", "connect", "listen")


@functools.cache
def filter_program(*, sockets: bool = True) -> bytes:
    """The filter as `--seccomp` of bubblewrap reads it, for this machine's architecture. Raises SandboxUnavailable.

    `sockets`: whether ordinary ones may be made; else who makes one is killed.
    """
    try:
        import pyseccomp
    except (ImportError, RuntimeError, OSError) as error:
        raise SandboxUnavailable(f"there is no system call filter: {error}", mend=_MEND) from error
    arg, masked = pyseccomp.Arg, pyseccomp.MASKED_EQ
    refuse, missing = pyseccomp.ERRNO(errno.EPERM), pyseccomp.ERRNO(errno.ENOSYS)
    try:
        rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
        rules.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.KILL_PROCESS)
        # A search tree: the kernel goes through the filter once for every system call there is when it is loaded.
        with contextlib.suppress(OSError):
            rules.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, 2)
        for action, names in ((refuse, _REFUSED), (missing, _MISSING)):
            for name, fallback in names.items():
                number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
                number = fallback if number < 0 and fallback is not None else number
                # Not a system call of this architecture.
                if number >= 0:
                    rules.add_rule(action, number)
        for flag in _CLONE_NEW:
            rules.add_rule(refuse, "clone", arg(0, masked, flag, flag))
        for request in (_TIOCSTI, _TIOCLINUX):
            # The kernel looks at the low 32 bits only, so the filter must too.
            rules.add_rule(refuse, "ioctl", arg(1, masked, _LOW, request))
        if sockets:
            _refuse_odd_sockets(rules)
        else:
            _kill_for_sockets(rules)
        top = 1 << 31
        for bit in range(31):
            if bit not in _PERSONALITIES:
                rules.add_rule(refuse, "personality", arg(0, masked, top | 1 << bit, 1 << bit))
            # The highest bit alone means nothing, and must not carry others in: only all of them together ask a question.
            rules.add_rule(refuse, "personality", arg(0, masked, top | 1 << bit, top))
        with tempfile.TemporaryFile() as memory:
            rules.export_bpf(memory)
            memory.seek(0)
            return memory.read()
    except OSError as error:
        raise SandboxUnavailable(f"the system call filter cannot be built: {error.strerror}", mend=_MEND) from error


def _refuse_odd_sockets(rules: SyscallFilter) -> None:
    import pyseccomp

    arg, refuse = pyseccomp.Arg, pyseccomp.ERRNO(errno.EPERM)
    # One comparison for each family: a rule cannot look at the same argument twice. Above 16 all are refused, and so is what
    # has bits above the lowest 32, which the kernel would not look at.
    for call in ("socket", "socketpair"):
        for family in range(17):
            if family not in _FAMILIES:
                rules.add_rule(refuse, call, arg(0, pyseccomp.EQ, family))
        rules.add_rule(refuse, call, arg(0, pyseccomp.GT, 16))
        rules.add_rule(refuse, call, arg(0, pyseccomp.MASKED_EQ, _LOW, 16), arg(2, pyseccomp.NE, 0))


def _kill_for_sockets(rules: SyscallFilter) -> None:
    import pyseccomp

    arg, refuse = pyseccomp.Arg, pyseccomp.ERRNO(errno.EACCES)
    for call in ("socket", "socketpair"):
        rules.add_rule(pyseccomp.KILL_PROCESS, call, arg(0, pyseccomp.NE, _UNIX))
    rules.add_rule(refuse, "socket", arg(0, pyseccomp.EQ, _UNIX))
    rules.add_rule(refuse, "socketpair", arg(0, pyseccomp.EQ, _UNIX), arg(1, pyseccomp.MASKED_EQ, 0xF, _DATAGRAMS))
    for call in _ADDRESSING:
        rules.add_rule(refuse, call)
    rules.add_rule(refuse, "sendto", arg(4, pyseccomp.NE, 0))
