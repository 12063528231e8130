"""The few Linux calls that Python's standard library does not offer, through the C library."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
MACHINE = os.uname().machine

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522
_TIOCNOTTY = 0x5422
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}.get(MACHINE, -1)
_SYS_CAPSET = {"x86_64": 126, "aarch64": 91}.get(MACHINE, -1)


def _check(result: int, what: str) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")
    return result


def prctl(option: int, argument: int = 0, pointer: object = None) -> None:
    second = ctypes.c_ulong(argument)
    _check(_libc.prctl(option, second, pointer, ctypes.c_ulong(0), ctypes.c_ulong(0)), f"prctl({option})")


def leave_terminal() -> None:
    """Have no controlling terminal, nor have the children: programs could read from it and type into it."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return  # there is none
    fcntl.ioctl(terminal, _TIOCNOTTY)
    os.close(terminal)


def set_name(name: str) -> None:
    """The name of this process in `ps` and `top`; 15 characters."""
    _check(_libc.prctl(PR_SET_NAME, ctypes.c_char_p(name.encode())), "prctl(PR_SET_NAME)")


def syscall(number: int, *arguments: object) -> int:
    return _check(_libc.syscall(ctypes.c_long(number), *arguments), f"system call {number}")


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    texts = [text.encode() if text is not None else None for text in (source, target, kind, data)]
    _check(_libc.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3]), f"mount {target}")


def detach(target: str) -> None:
    _check(_libc.umount2(target.encode(), 2), f"umount {target}")


def pivot_root(new_root: str, put_old: str) -> None:
    syscall(_SYS_PIVOT_ROOT, new_root.encode(), put_old.encode())


def sethostname(name: str) -> None:
    _check(_libc.sethostname(name.encode(), len(name)), "sethostname")


class Prepared:
    """A system call whose arguments are ready: what a child makes, it pays for in copied pages.

    Numbers are those of system calls; each argument is an int or something that lies in memory.
    """

    def __init__(self, number: int, *arguments: object) -> None:
        self._arguments = [
            ctypes.c_long(each) if isinstance(each, int) else each for each in (number, *arguments, *[0] * 5)
        ][:6]

    def __call__(self, call=_libc.syscall) -> None:  # noqa: ANN001
        if call(*self._arguments) < 0:
            _check(-1, f"system call {self._arguments[0].value}")


SYS_PRCTL = {"x86_64": 157, "aarch64": 167}.get(MACHINE, -1)
# None can come back: exec is refused, and PR_SET_NO_NEW_PRIVS holds.
drop_capabilities = Prepared(_SYS_CAPSET, (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)())
die_with_parent = Prepared(SYS_PRCTL, PR_SET_PDEATHSIG, signal.SIGKILL)
