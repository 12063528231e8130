"""What a reward function may do: right things and wrong ones.  A call names one of them: `act(what, given)`."""

from __future__ import annotations

import asyncio
import ctypes
import os
import random
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

print("imported", "x" * 10_000)


def act(what, given=None):
    return ACTS[what](given)


def loop(given):
    while True:
        pass


def fork(given):
    """The child goes on with the function as if it were the worker, and then returns."""
    os.fork()
    return os.getpid()


def fork_and_loop(given):
    if os.fork() == 0:
        loop(None)
    return 1


def fork_and_exit(given):
    """The child holds everything open that the worker had."""
    if os.fork() == 0:
        time.sleep(600)
    os._exit(3)


def daemon(given):
    """A process in a session of its own, whose parent is gone."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            mark(given)
            time.sleep(600)
        wait_for_file(given)  # then only is it an orphan, which is ended at once
        os._exit(0)
    return wait_for_file(given)


def hang_with_children(given):
    subprocess.Popen(["sleep", "600"])
    subprocess.Popen(["sleep", "600"], start_new_session=True)
    time.sleep(600)


def mark(path):
    """Leave the process's number behind."""
    Path(path).write_text(str(os.getpid()))


def mark_and_wait(path):
    mark(path)
    time.sleep(600)


def write_much(given):
    block = "x" * 2**20
    for _ in range(1024):
        print(block)
        sys.stderr.write(block)
    return 1


def write_much_below(given):
    block = b"x" * 2**20
    for _ in range(1024):
        os.write(1, block)
        os.write(2, block)
    return 1


def write_much_and_go_on(given):
    for _ in range(1024):
        try:
            print("x" * 2**20)
        except Exception:
            pass
    return 1


def scribble(given):
    """Write what is no answer into whatever is open."""
    for file in range(3, 64):
        try:
            os.write(file, struct.pack(">I", 2) + b"{}")
        except OSError:
            pass
    return 1


def print_below(given):
    os.write(1, b"told below\n")


def leave_child(given):
    return subprocess.Popen(["sleep", "600"]).pid


def wait_for_child(given):
    return subprocess.run(["true"]).returncode


def forget_child(given):
    """It is over, and nobody asks how."""
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    return 1


def thread(given):
    threading.Thread(target=loop, args=(None,)).start()
    return 1


def recurse(given):
    return recurse(given)


def deep(given):
    value = []
    for _ in range(100_000):
        value = [value]
    return value


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no words")


def unprintable(given):
    raise Unprintable


def cyclic(given):
    value = []
    value.append(value)
    return value


def close_all(given):
    os.closerange(3, 1024)
    return 1


async def later(given):
    await asyncio.sleep(0.001)
    return given


async def never(given):
    await asyncio.Event().wait()


def wait_for_file(path):
    while not Path(path).exists():
        time.sleep(0.01)
    return 1


def sleep(given):
    time.sleep(given)
    return 1


def interrupt(given):
    raise KeyboardInterrupt


def fail(given):
    raise ValueError("no such answer")


ACTS = {
    **{f.__name__: f for f in (loop, fork, fork_and_loop, fork_and_exit, daemon, hang_with_children, mark_and_wait)},
    **{f.__name__: f for f in (write_much, write_much_below, thread, recurse, deep, unprintable, cyclic, close_all)},
    **{f.__name__: f for f in (later, never, wait_for_file, sleep, interrupt, fail)},
    **{f.__name__: f for f in (write_much_and_go_on, print_below, leave_child, wait_for_child, forget_child, scribble)},
    "give": lambda given: given,
    "pid": lambda given: os.getpid(),
    "random": lambda given: random.random(),
    "modules": lambda given: sorted(sys.modules),
    "print": lambda given: print("told"),
    "exit": lambda given: os._exit(7),
    "sys_exit": lambda given: sys.exit(7),
    "segfault": lambda given: ctypes.string_at(0),
    "nan": lambda given: float("nan"),
    "object": lambda given: object(),
    "huge": lambda given: "x" * 2**24,
    "bytes": lambda given: b"1",
}
