"""The program that gives up root: it becomes the user of an owner, and executes its own words as the command.

`chroot --userspec` of coreutils does the same, and is what is used where there is no program here for the machine. But it is a
whole program with a loader, libraries and locales, and to start it takes longer than all that the sandbox does otherwise beside
bubblewrap itself. This one is written out here, call by call: an ELF file of some 300 bytes with the number of the user in it.

    setgroups(0, 0); setresgid(uid, uid, uid); setresuid(uid, uid, uid); execve(argv[1], argv + 1, envp); exit(126)

Each call that fails leads to the last. The kernel takes all capabilities with the change from root to another user.
"""

from __future__ import annotations

import platform
import struct
from typing import Final

MACHINE: Final = platform.machine()
FAILED: Final = 126
"""The exit code when the user cannot be changed or the command cannot be executed, as shells have it."""

# Numbers of system calls, and `mov register, number` of the registers that they and their arguments are in.
_SETGROUPS, _SETRESGID, _SETRESUID, _EXECVE, _EXIT = 116, 119, 117, 59, 60
_EAX, _EDI, _ESI, _EDX = b"\xb8", b"\xbf", b"\xbe", b"\xba"
_SYSCALL: Final = b"\x0f\x05"
_IF_NOT_ZERO: Final = b"\x85\xc0\x0f\x85"
"""`test eax, eax; jne` to a place that is as many bytes away as the next four say."""

_OWN_WORDS: Final = (
    b"\x48\x8b\x0c\x24"  # mov rcx, [rsp]            how many words
    b"\x48\x8b\x7c\x24\x10"  # mov rdi, [rsp + 16]       the second one: the path
    b"\x48\x8d\x74\x24\x10"  # lea rsi, [rsp + 16]       the words from the second on
    b"\x48\x8d\x54\xcc\x10"  # lea rdx, [rsp + rcx * 8 + 16]   behind the end of the words: the environment
)
_BASE: Final = 0x400000
_HEADERS: Final = 64 + 56


def become(uid: int) -> bytes | None:
    """The program that becomes `uid`; None: there is none for this machine."""
    if MACHINE != "x86_64":
        return None
    calls = (
        _call(_SETGROUPS, (_EDI, 0), (_ESI, 0)),
        _call(_SETRESGID, (_EDI, uid), (_ESI, uid), (_EDX, uid)),
        _call(_SETRESUID, (_EDI, uid), (_ESI, uid), (_EDX, uid)),
    )
    execute = _OWN_WORDS + _call(_EXECVE)
    end = _call(_EXIT, (_EDI, FAILED))
    length = sum(len(call) + len(_IF_NOT_ZERO) + 4 for call in calls) + len(execute)
    code = b""
    for call in calls:
        code += call + _IF_NOT_ZERO
        code += struct.pack("<i", length - len(code) - 4)
    return _elf(code + execute + end)


def _call(number: int, *arguments: tuple[bytes, int]) -> bytes:
    return b"".join(register + struct.pack("<I", value) for register, value in (*arguments, (_EAX, number))) + _SYSCALL


def _elf(code: bytes) -> bytes:
    """An executable file of 64 bits with nothing but `code`, which is mapped to be read and executed."""
    size = _HEADERS + len(code)
    identity = b"\x7fELF" + bytes((2, 1, 1, 0)) + bytes(8)
    header = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 4096)
    return identity + header + segment + code
