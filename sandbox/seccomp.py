"""seccomp: the system calls that a Python program needs; every other one fails with EPERM.

An allow list, since the kernel grows a new way around every block list.  Calls whose arguments decide (clone, kill,
fcntl, …) come with their own test.  Left out although they look harmless: whatever names another process
(sched_setaffinity, getpriority), reaches other sockets (sendmsg), makes the kernel hold more memory for a socket or a
pipe (setsockopt, F_SETPIPE_SZ), or works on what all processes share, page cache and cores (fadvise64, membarrier).
Numbers: arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import signal
import socket
import struct

from . import linux

_SET_SECCOMP, _MODE_FILTER = 22, 2
_KILL, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CLONE_FILES, _CLONE_THREAD = 0x00000400, 0x00010000
_CLONE_NEW = 0x7E020000  # every namespace flag of clone
_TERMINAL_ATTRIBUTES = (0x5401, 0x5421, 0x5451)  # TCGETS (isatty), FIONBIO, FIOCLEX
_HARMLESS_PRCTL = (3, 15, 16, 0x53564D41)  # dumpable?, set and get the thread's name, name a memory area
_HARMLESS_FCNTL = (
    fcntl.F_DUPFD, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL, fcntl.F_DUPFD_CLOEXEC, fcntl.F_GETPIPE_SZ
)  # fmt: skip
_HARMLESS_SOCKET_OPTIONS = (
    socket.SO_TYPE, socket.SO_ERROR, socket.SO_DOMAIN, socket.SO_PROTOCOL, socket.SO_ACCEPTCONN, socket.SO_SNDBUF,
    socket.SO_RCVBUF,
)  # fmt: skip

# name: (x86-64, arm64); -1 where the architecture has no such call.
_ALLOWED = {
    "read": (0, 63), "write": (1, 64), "mmap": (9, 222), "munmap": (11, 215), "brk": (12, 214), "futex": (202, 98),
    "lseek": (8, 62), "fstat": (5, 80), "newfstatat": (262, 79), "close": (3, 57),
    "ftruncate": (77, 46), "pread64": (17, 67), "pwrite64": (18, 68), "readv": (19, 65), "writev": (20, 66),
    "recvfrom": (45, 207), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139), "mprotect": (10, 226), "madvise": (28, 233), "mremap": (25, 216),
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115), "nanosleep": (35, 101),
    "gettimeofday": (96, 169), "time": (201, -1), "getrandom": (318, 278), "getpid": (39, 172), "getppid": (110, 173),
    "gettid": (186, 178), "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177),
    "getresuid": (118, 148), "getresgid": (120, 150), "getgroups": (115, 158),
    "getpgrp": (111, -1), "exit": (60, 93), "exit_group": (231, 94),
    "stat": (4, -1), "lstat": (6, -1), "statx": (332, 291), "access": (21, -1), "faccessat": (269, 48),
    "faccessat2": (439, 439), "readlink": (89, -1), "readlinkat": (267, 78), "getdents64": (217, 61),
    "getcwd": (79, 17), "umask": (95, 166), "uname": (63, 160), "sysinfo": (99, 179), "dup": (32, 23),
    "dup2": (33, -1), "dup3": (292, 24), "pipe": (22, -1), "pipe2": (293, 59), "poll": (7, -1),
    "ppoll": (271, 73), "select": (23, -1), "pselect6": (270, 72), "epoll_create1": (291, 20), "epoll_ctl": (233, 21),
    "epoll_wait": (232, -1), "epoll_pwait": (281, 22), "eventfd2": (290, 19),
    "getsockname": (51, 204), "getpeername": (52, 205), "shutdown": (48, 210), "sigaltstack": (131, 132),
    "rt_sigpending": (127, 136), "rt_sigsuspend": (130, 133), "rt_sigtimedwait": (128, 137), "pause": (34, -1),
    "alarm": (37, -1), "getitimer": (36, 102), "setitimer": (38, 103), "restart_syscall": (219, 128),
    "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "getrusage": (98, 165), "getrlimit": (97, 163),
    "setrlimit": (160, 164), "times": (100, 153), "getcpu": (309, 168), "set_robust_list": (273, 99),
    "set_tid_address": (218, 96), "rseq": (334, 293), "arch_prctl": (158, -1), "fsync": (74, 82), "fdatasync": (75, 83),
}  # fmt: skip
_CLONE, _CLONE3, _KILL_CALL, _TGKILL = (56, 220), (435, 435), (62, 129), (234, 131)
_PRCTL, _PRLIMIT64, _IOCTL, _SOCKETPAIR = (157, 167), (302, 261), (16, 29), (53, 199)
_SENDTO, _FCNTL, _SETRLIMIT, _GETSOCKOPT = (44, 206), (72, 25), (160, 164), (55, 209)
_ABOUT_A_PROCESS = ((143, 121), (145, 120), (121, 155), (124, 156))  # sched_getparam, …_getscheduler, getpgid, getsid

_OPEN, _OPENAT = (2, -1), (257, 56)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

_OWN_PROCESS = 0xFFFFFFF0  # stands for the number of the process until `install`

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _JUMP, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x05, 0x06
_FARTHEST = 255  # instructions that a conditional jump can skip


def _instruction(code: int, constant: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, constant)


def _argument(index: int, high: bool = False) -> bytes:
    """Load one half of an argument, the low one where the kernel reads no more than a 32-bit integer."""
    return _instruction(_LOAD, 16 + 8 * index + 4 * high)


_ALLOW_IT = _instruction(_RETURN, _ALLOW)
_REFUSE_IT = _instruction(_RETURN, _ERRNO | errno.EPERM)
_ALLOW_OR_REFUSE = _ALLOW_IT + _REFUSE_IT


def _column() -> int:
    if linux.MACHINE not in _ARCHITECTURE:
        raise OSError(errno.ENOSYS, f"no system-call table for {linux.MACHINE}")
    return list(_ARCHITECTURE).index(linux.MACHINE)


def _head() -> bytes:
    """Refuse foreign calling conventions and load the number of the call."""
    architecture = list(_ARCHITECTURE.values())[_column()]
    return (
        _instruction(_LOAD, 4)
        + _instruction(_EQUAL, architecture, 1, 0)
        + _instruction(_RETURN, _KILL)
        + _instruction(_LOAD, 0)
    )


def _decide(bodies: dict[tuple[int, int], bytes], otherwise: bytes) -> bytes:
    """What to do with each call, found by bisection.

    As it installs a filter, the kernel runs it once for every call that exists, to learn which ones it need not ask
    about again; every child pays for that.  Each body ends in a return.
    """
    column = _column()
    by_number = {numbers[column]: body for numbers, body in bodies.items() if numbers[column] >= 0}
    segments = [(0, otherwise)]  # each up to the beginning of the next one
    for number, body in sorted(by_number.items()):
        for first, its in ((number, body), (number + 1, otherwise)):
            if segments[-1][0] == first:
                segments.pop()
            if not segments or segments[-1][1] != its:
                segments.append((first, its))
    return _bisection(segments)


def _bisection(segments: list[tuple[int, bytes]]) -> bytes:
    if len(segments) == 1:
        return segments[0][1]
    middle = len(segments) // 2
    below, above = _bisection(segments[:middle]), _bisection(segments[middle:])
    first, skipped = segments[middle][0], len(below) // 8
    if skipped <= _FARTHEST:
        return _instruction(_AT_LEAST, first, skipped, 0) + below + above
    return _instruction(_AT_LEAST, first, 0, 1) + _instruction(_JUMP, skipped) + below + above


def _one_of(index: int, values: tuple[int, ...]) -> bytes:
    tests = b"".join(_instruction(_EQUAL, value, 0, 1) + _ALLOW_IT for value in values)
    return _argument(index) + tests + _REFUSE_IT


def _null(index: int) -> bytes:
    """Allow the call only where a pointer is NULL."""
    return (
        _argument(index)
        + _instruction(_EQUAL, 0, 0, 3)
        + _argument(index, high=True)
        + _instruction(_EQUAL, 0, 0, 1)
        + _ALLOW_OR_REFUSE
    )


class Filter:
    """The filter for this machine; assembled once, completed with the own process id in each child.

    It lets a process set its limits and add filters: that is what the child has yet to do, and what `LastFilter`, which
    it adds, takes away.
    """

    def __init__(self, read_only: bool = False) -> None:
        """read_only: refuse every opening of a file for writing, where Landlock is not there to do it."""
        bodies = dict.fromkeys(_ALLOWED.values(), _ALLOW_IT)
        bodies |= {
            _SENDTO: _null(4),  # an address would reach sockets outside, abstract ones without any file
            _OPEN: self._opening(1, read_only),
            _OPENAT: self._opening(2, read_only),
            _FCNTL: self._file_control(),
            _CLONE: self._threads_only(),
            _CLONE3: _instruction(_RETURN, _ERRNO | errno.ENOSYS),  # its flags are out of reach
            _PRCTL: _one_of(0, (*_HARMLESS_PRCTL, _SET_SECCOMP)),
            _PRLIMIT64: _one_of(0, (0,)),
            _IOCTL: _one_of(1, _TERMINAL_ATTRIBUTES),
            # Datagram sockets can be addressed to others, and hold more than streams.
            _SOCKETPAIR: self._unix_streams(),
            _GETSOCKOPT: _one_of(2, _HARMLESS_SOCKET_OPTIONS),
            _KILL_CALL: self._own_signals(1),
            _TGKILL: self._own_signals(2),
        }
        bodies |= {numbers: _one_of(0, (0, _OWN_PROCESS)) for numbers in _ABOUT_A_PROCESS}
        code = _head() + _decide(bodies, _REFUSE_IT)
        # Every child fills in its own number; the rest is ready: building it would cost each child anew.
        own = struct.pack("=I", _OWN_PROCESS)
        self._places = [place // 4 for place in range(4, len(code), 8) if code[place : place + 4] == own]
        self._install, self._words = _prepared(code)

    @staticmethod
    def _opening(flags: int, read_only: bool) -> bytes:
        if not read_only:
            return _ALLOW_IT
        return _argument(flags) + _instruction(_ANY_BIT, _WRITING, 1, 0) + _ALLOW_OR_REFUSE

    @staticmethod
    def _file_control() -> bytes:
        """No leases, locks, notifications, sizes of pipes, and no signals to whomever: only what a program may need.

        F_SETOWN with O_ASYNC makes the kernel send any signal, SIGKILL too, to any process of the same user.
        """
        tests = b"".join(_instruction(_EQUAL, command, 0, 1) + _ALLOW_IT for command in _HARMLESS_FCNTL)
        flags = _argument(2) + _instruction(_ANY_BIT, os.O_ASYNC, 1, 0) + _ALLOW_OR_REFUSE
        return _argument(1) + tests + _instruction(_EQUAL, fcntl.F_SETFL, 0, len(flags) // 8) + flags + _REFUSE_IT

    @staticmethod
    def _unix_streams() -> bytes:
        kinds = tuple(
            socket.SOCK_STREAM | flags
            for flags in (0, socket.SOCK_CLOEXEC, socket.SOCK_NONBLOCK, socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        )
        return _argument(0) + _instruction(_EQUAL, socket.AF_UNIX, 1, 0) + _REFUSE_IT + _one_of(1, kinds)

    @staticmethod
    def _threads_only() -> bytes:
        """Threads that share their descriptors: with tables of their own, they would hold any number of sockets."""
        return (
            _argument(0)
            + _instruction(_ANY_BIT, _CLONE_NEW, 3, 0)
            + _instruction(_ANY_BIT, _CLONE_THREAD, 0, 2)
            + _instruction(_ANY_BIT, _CLONE_FILES, 0, 1)
            + _ALLOW_OR_REFUSE
        )

    @staticmethod
    def _own_signals(signal_argument: int) -> bytes:
        """Signals to itself only, and no SIGKILL: a death by SIGKILL then means that somebody outside did it."""
        return (
            _argument(0)
            + _instruction(_EQUAL, _OWN_PROCESS, 0, 3)
            + _argument(signal_argument)
            + _instruction(_EQUAL, signal.SIGKILL, 1, 0)
            + _ALLOW_OR_REFUSE
        )

    def install(self, process_id: int) -> None:
        """Put this process under the filter, for good.  Needs PR_SET_NO_NEW_PRIVS."""
        for place in self._places:
            self._words[place] = process_id
        self._install()


class LastFilter:
    """What a child adds once its limits are set: no limit changes any more, and no filter is added.

    A program that could lower its limits would choose how it dies, by SIGKILL above all (RLIMIT_CPU).  RLIMIT_STACK is
    the exception: many programs raise it, and who lowers it dies of SIGSEGV.
    """

    def __init__(self) -> None:
        stack_or_nothing_new = _argument(1) + _instruction(_EQUAL, resource.RLIMIT_STACK, 0, 1) + _ALLOW_IT + _null(2)
        bodies = {
            _SETRLIMIT: _one_of(0, (resource.RLIMIT_STACK,)),
            _PRLIMIT64: stack_or_nothing_new,
            _PRCTL: _one_of(0, _HARMLESS_PRCTL),
        }
        code = _head() + _decide(bodies, _ALLOW_IT)
        self.install, self._words = _prepared(code)


def _prepared(code: bytes) -> tuple[linux.Prepared, memoryview]:
    """The call that installs a filter, and the words of its instructions, which may still be changed."""
    words = (ctypes.c_uint32 * (len(code) // 4)).from_buffer_copy(code)
    program = ctypes.create_string_buffer(struct.pack("=HxxxxxxQ", len(code) // 8, ctypes.addressof(words)))
    view = memoryview(words).cast("B").cast("I")
    return linux.Prepared(linux.SYS_PRCTL, _SET_SECCOMP, _MODE_FILTER, program), view
