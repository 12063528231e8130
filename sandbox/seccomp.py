"""seccomp: the system calls that a Python program needs; every other one fails with EPERM.

An allow list, since the kernel grows a new way around every block list.  Calls whose arguments decide (clone, kill,
prctl, …) come with their own test.  Numbers: arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h.
"""

from __future__ import annotations

import ctypes
import errno
import signal
import struct

from . import linux

_SET_SECCOMP, _MODE_FILTER = 22, 2
_KILL, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CLONE_THREAD = 0x00010000
_CLONE_NEW = 0x7E020000  # every namespace flag of clone
_AF_UNIX = 1
_TERMINAL_ATTRIBUTES = (0x5401, 0x5421, 0x5451)  # TCGETS (isatty), FIONBIO, FIOCLEX
_HARMLESS_PRCTL = (3, 15, 16, 0x53564D41)  # dumpable?, set and get the thread's name, name a memory area

# name: (x86-64, arm64); -1 where the architecture has no such call.  The most frequent first.
_ALLOWED = {
    "read": (0, 63), "write": (1, 64), "mmap": (9, 222), "munmap": (11, 215), "brk": (12, 214), "futex": (202, 98),
    "lseek": (8, 62), "fstat": (5, 80), "newfstatat": (262, 79), "close": (3, 57),
    "ftruncate": (77, 46), "pread64": (17, 67), "pwrite64": (18, 68), "readv": (19, 65), "writev": (20, 66),
    "sendto": (44, 206), "recvfrom": (45, 207), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139), "mprotect": (10, 226), "madvise": (28, 233), "mremap": (25, 216),
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115), "nanosleep": (35, 101),
    "gettimeofday": (96, 169), "time": (201, -1), "getrandom": (318, 278), "getpid": (39, 172), "getppid": (110, 173),
    "gettid": (186, 178), "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177),
    "getresuid": (118, 148), "getresgid": (120, 150), "getgroups": (115, 158), "getpgid": (121, 155),
    "getpgrp": (111, -1), "getsid": (124, 156), "exit": (60, 93), "exit_group": (231, 94),
    "stat": (4, -1), "lstat": (6, -1), "statx": (332, 291), "access": (21, -1), "faccessat": (269, 48),
    "faccessat2": (439, 439), "readlink": (89, -1), "readlinkat": (267, 78), "getdents64": (217, 61),
    "getcwd": (79, 17), "umask": (95, 166), "uname": (63, 160), "sysinfo": (99, 179), "dup": (32, 23),
    "dup2": (33, -1), "dup3": (292, 24), "fcntl": (72, 25), "pipe": (22, -1), "pipe2": (293, 59), "poll": (7, -1),
    "ppoll": (271, 73), "select": (23, -1), "pselect6": (270, 72), "epoll_create1": (291, 20), "epoll_ctl": (233, 21),
    "epoll_wait": (232, -1), "epoll_pwait": (281, 22), "eventfd2": (290, 19), "getsockopt": (55, 209),
    "setsockopt": (54, 208), "getsockname": (51, 204), "getpeername": (52, 205), "shutdown": (48, 210),
    "recvmsg": (47, 212), "sendmsg": (46, 211), "sigaltstack": (131, 132), "rt_sigpending": (127, 136),
    "rt_sigsuspend": (130, 133), "rt_sigtimedwait": (128, 137), "pause": (34, -1), "alarm": (37, -1),
    "getitimer": (36, 102), "setitimer": (38, 103), "restart_syscall": (219, 128), "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123), "sched_setaffinity": (203, 122), "sched_getparam": (143, 121),
    "sched_getscheduler": (145, 120), "getpriority": (140, 141), "getrusage": (98, 165), "getrlimit": (97, 163),
    "setrlimit": (160, 164), "times": (100, 153), "getcpu": (309, 168), "set_robust_list": (273, 99),
    "get_robust_list": (274, 100), "set_tid_address": (218, 96), "rseq": (334, 293), "membarrier": (324, 283),
    "arch_prctl": (158, -1), "fadvise64": (221, 223), "fsync": (74, 82), "fdatasync": (75, 83), "mincore": (27, 232),
}  # fmt: skip
_CLONE, _CLONE3, _KILL_CALL, _TGKILL = (56, 220), (435, 435), (62, 129), (234, 131)
_PRCTL, _PRLIMIT64, _IOCTL, _SOCKETPAIR = (157, 167), (302, 261), (16, 29), (53, 199)

_OPEN, _OPENAT = (2, -1), (257, 56)
_WRITING = 0o3 | 0o100 | 0o1000  # O_WRONLY, O_RDWR, O_CREAT, O_TRUNC

_OWN_PROCESS = 0xFFFFFFF0  # stands for the number of the process until `install`

_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06


def _instruction(code: int, constant: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, constant)


def _argument(index: int) -> bytes:
    """Load the low half of an argument: the kernel reads all those tested here as 32-bit integers."""
    return _instruction(_LOAD, 16 + 8 * index)


_ALLOW_IT = _instruction(_RETURN, _ALLOW)
_REFUSE_IT = _instruction(_RETURN, _ERRNO | errno.EPERM)


class Filter:
    """The filter for this machine; assembled once, completed with the own process id in each child."""

    def __init__(self, read_only: bool = False) -> None:
        """read_only: refuse every opening of a file for writing, where Landlock is not there to do it."""
        if linux.MACHINE not in _ARCHITECTURE:
            raise OSError(errno.ENOSYS, f"no system-call table for {linux.MACHINE}")
        column = list(_ARCHITECTURE).index(linux.MACHINE)
        self._column = column
        head = _instruction(_LOAD, 4) + _instruction(_EQUAL, _ARCHITECTURE[linux.MACHINE], 1, 0)
        head += _instruction(_RETURN, _KILL) + _instruction(_LOAD, 0)
        plain = b"".join(
            _instruction(_EQUAL, numbers[column], 0, 1) + _ALLOW_IT
            for numbers in _ALLOWED.values()
            if numbers[column] >= 0
        )
        code = head + plain + self._own_signals()
        code += b"".join(
            [
                self._when(_OPEN, self._opening(1, read_only)),
                self._when(_OPENAT, self._opening(2, read_only)),
                self._when(_CLONE, self._threads_only()),
                self._when(_CLONE3, _instruction(_RETURN, _ERRNO | errno.ENOSYS)),  # its flags are out of reach
                self._when(_PRCTL, self._one_of(0, _HARMLESS_PRCTL)),
                self._when(_PRLIMIT64, self._one_of(0, (0,))),
                self._when(_IOCTL, self._one_of(1, _TERMINAL_ATTRIBUTES)),
                self._when(_SOCKETPAIR, self._one_of(0, (_AF_UNIX,))),
                _REFUSE_IT,
            ]
        )
        # Every child fills in its own number; the rest is ready: building it would cost each child anew.
        own = struct.pack("=I", _OWN_PROCESS)
        self._places = [place for place in range(4, len(code), 8) if code[place : place + 4] == own]
        self._code = ctypes.create_string_buffer(code, len(code))
        self._program = struct.pack("=HxxxxxxQ", len(code) // 8, ctypes.addressof(self._code))

    def _when(self, numbers: tuple[int, int], body: bytes) -> bytes:
        if numbers[self._column] < 0:
            return b""
        return _instruction(_EQUAL, numbers[self._column], 0, len(body) // 8) + body

    @staticmethod
    def _one_of(index: int, values: tuple[int, ...]) -> bytes:
        tests = b"".join(_instruction(_EQUAL, value, 0, 1) + _ALLOW_IT for value in values)
        return _argument(index) + tests + _REFUSE_IT

    @staticmethod
    def _opening(flags: int, read_only: bool) -> bytes:
        if not read_only:
            return _ALLOW_IT
        return _argument(flags) + _instruction(_ANY_BIT, _WRITING, 1, 0) + _ALLOW_IT + _REFUSE_IT

    @staticmethod
    def _threads_only() -> bytes:
        return (
            _argument(0)
            + _instruction(_ANY_BIT, _CLONE_NEW, 2, 0)
            + _instruction(_ANY_BIT, _CLONE_THREAD, 0, 1)
            + _ALLOW_IT
            + _REFUSE_IT
        )

    def _own_signals(self) -> bytes:
        """Signals to itself only, and no SIGKILL: a death by SIGKILL then means that somebody outside did it."""

        def body(signal_argument: int) -> bytes:
            return (
                _argument(0)
                + _instruction(_EQUAL, _OWN_PROCESS, 0, 3)
                + _argument(signal_argument)
                + _instruction(_EQUAL, signal.SIGKILL, 1, 0)
                + _ALLOW_IT
                + _REFUSE_IT
            )

        return self._when(_KILL_CALL, body(1)) + self._when(_TGKILL, body(2))

    def install(self, process_id: int) -> None:
        """Put this process under the filter, for good.  Needs PR_SET_NO_NEW_PRIVS."""
        for place in self._places:
            struct.pack_into("=I", self._code, place, process_id)
        linux.prctl(_SET_SECCOMP, _MODE_FILTER, self._program)
