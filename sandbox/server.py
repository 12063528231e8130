"""The fork server: starts small, warms up, and forks hardened children that wait for one job each.

It runs in an interpreter of its own (see `bootstrap`), imports nothing of the judge's side, and never sees an
expected output, so that no child can find one in inherited memory.
"""

from __future__ import annotations

import array
import atexit
import builtins
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable

from . import child, heap, isolation, linux, namespaces, runner, wire
from .later import ASSERTIONS
from .prelude import MAX_INT_DIGITS, install_prelude, take_over_seeding

_MAX_DESCRIPTORS = 1 << 20
_FORK_ATTEMPTS = 100
_REHEARSALS = 10  # the interpreter adapts code to what it does from the eighth call on; children inherit that
_LATER_BYTES = 4 << 20  # of address space, more than what assertion tests load on top
# Where all programs have one user id, the kernel counts their threads together with all others of that user.
_COUNT_EVERY_S = 5.0
_THREADS_TO_COME = 1024  # of others, until they are counted again


def main(control_fd: int, settings: dict, probe: isolation.Probe | None) -> None:
    """Find the isolation, enter it, say so, serve until the judge hangs up.

    probe: of namespaces, begun before everything else.
    """
    _die_with(settings["parent"])
    os.environ.pop("LD_BIND_NOW", None)
    control = socket.socket(fileno=control_fd)
    site_packages = [os.path.realpath(path) for path in settings["site_packages"]]
    _like_a_script(site_packages)
    seed = take_over_seeding()
    prelude = install_prelude()
    for fd in (0, 1):  # files, as in a child
        os.dup2(os.memfd_create("rehearsal"), fd)
    for _ in range(_REHEARSALS):
        child.rehearse(prelude)
    base_bytes = _address_space() + _LATER_BYTES
    numpys_seed, problem = _load_numpy(settings["packages"]) if settings["numpy"] else (None, None)
    readable = isolation.readable_paths(site_packages, settings["packages"])
    found = isolation.find(settings["isolation"], readable, probe)
    problem = problem or isolation.why_not(found, settings["isolation"])
    if problem is not None:
        control.send(json.dumps({"problem": problem}).encode())
        return
    if found.level == "namespaces":
        found.users = namespaces.enter()
        _die_with(settings["parent"])  # again: the change of user has cleared it
        pid = os.fork()
        if pid != 0:
            control.close()
            os.waitpid(pid, 0)
            os._exit(0)
        _die_with(0)  # the keeper has no number in here; this process is 1, and its children end together with it
        found.proc = isolation.enter_root(found, readable)
    hardening = isolation.Hardening(found, readable, site_packages)
    null = os.open("/dev/null", os.O_WRONLY)
    control.send(json.dumps(vars(found) | {"python": sys.version.split()[0]}).encode())
    os.dup2(null, 2)  # from here on, and in every child, stderr goes nowhere
    os.close(null)
    for fd in (0, 1):
        os.lseek(fd, 0, os.SEEK_SET)
    runner.prepare_streams()
    seeds = [seed] if numpys_seed is None else [seed, numpys_seed]
    _Server(control, prelude, base_bytes, hardening, seeds, *settings["slots"]).serve()


def _die_with(parent: int | None) -> None:
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(0)  # the parent died before the line above


def _like_a_script(site_packages: list[str]) -> None:
    """What an ordinary interpreter has and one started with -I -S lacks."""
    import _sitebuiltins

    sys.path.extend(site_packages)
    builtins.exit = _sitebuiltins.Quitter("exit", "Ctrl-D (i.e. EOF)")
    builtins.quit = _sitebuiltins.Quitter("quit", "Ctrl-D (i.e. EOF)")
    sys.set_int_max_str_digits(MAX_INT_DIGITS)
    sys.argv = ["solution.py"]


def _load_numpy(packages: list[str]) -> tuple[Callable[[], None] | None, str | None]:
    """What seeds numpy's global generator anew, where there is one yet, and why this cannot be a server with numpy.

    A program's memory counts from before, as if it had imported numpy itself: no verdict depends on which server's
    child it meets.
    """
    if "numpy" not in packages:
        return None, "programs may not import numpy"
    try:
        import numpy
    except BaseException as error:
        return None, f"numpy cannot be imported: {error}"
    if len(os.listdir("/proc/self/task")) > 1:  # a fork takes only one along, and what the others hold stays locked
        return None, "numpy has started threads"
    return numpy.random.seed if "numpy.random" in sys.modules else None, None


def _address_space() -> int:
    """Bytes of address space that every child starts with."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _freeze() -> None:
    """Hide what there is from the collector, so that a child's leaves these pages shared, and order the heap."""
    gc.collect()
    gc.freeze()
    heap.tidy()


class _Server:
    def __init__(
        self,
        control: socket.socket,
        prelude: dict,
        base_bytes: int,
        hardening: isolation.Hardening,
        seeds: list[Callable[[], None]],
        last_slot: int,
        slot_step: int,
    ) -> None:
        self._control = control
        self._seeds = seeds
        self._prelude = prelude
        self._base_bytes = base_bytes
        self._hardening = hardening
        self._last_slot, self._slot_step = last_slot, slot_step
        self._children: dict[int, tuple[int, int]] = {}  # pidfd → process id, slot
        self._events = select.epoll()
        self._other_threads, self._counted = 0, -_COUNT_EVERY_S

    def serve(self) -> None:
        linux.set_name("sandbox-server")
        before = _address_space()
        _freeze()
        self._base_bytes += _address_space() - before
        control = self._control.fileno()
        self._events.register(control, select.EPOLLIN)
        while True:
            for fd, _ in self._events.poll():
                if fd != control:
                    self._bury(fd)
                    continue
                message = self._control.recv(64)
                if not message:
                    os._exit(0)
                _, count, rehearse, assertions = wire.SPAWN.unpack(message)
                if assertions and ASSERTIONS.load():
                    _freeze()
                self._spawn(count, rehearse)

    def _bury(self, pidfd: int) -> None:
        process_id, slot = self._children.pop(pidfd)
        self._events.unregister(pidfd)
        os.close(pidfd)
        _, status, usage = os.wait4(process_id, 0)
        cpu_s = usage.ru_utime + usage.ru_stime
        self._control.send(wire.EXITED.pack(b"X", slot, status, cpu_s, usage.ru_maxrss))

    def _spawn(self, count: int, rehearse: bool) -> None:
        if not self._hardening.own_users and time.monotonic() - self._counted > _COUNT_EVERY_S:
            self._other_threads, self._counted = _threads_of_this_user() + _THREADS_TO_COME, time.monotonic()
        # Nothing but forks in a row: after each one, every page that this process writes to is copied.
        step = self._slot_step
        children = [(self._last_slot + step * number, _Files()) for number in range(1, count + 1)]
        self._last_slot += step * count
        process_ids = []
        linux.set_name("sandbox-child")  # which children inherit
        for slot, files in children:
            pid = _fork()
            if pid == 0:
                try:
                    self._become_child(slot, files, rehearse)
                finally:
                    os._exit(70)
            process_ids.append(pid)
        linux.set_name("sandbox-server")
        for (slot, files), pid in zip(children, process_ids, strict=True):
            pidfd = os.pidfd_open(pid)
            self._children[pidfd] = (pid, slot)
            self._events.register(pidfd, select.EPOLLIN)
            rights = array.array("i", files.for_judge())
            self._control.sendmsg([wire.SPAWNED.pack(b"C", slot)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            files.close()

    def _become_child(self, slot: int, files: _Files, rehearse: bool) -> None:
        linux.die_with_parent()
        os.dup2(files.stdin, 0)
        os.dup2(files.stdout, 1)
        _close_all_but([files.connection.fileno(), files.reports.fileno(), *self._hardening.descriptors])
        atexit._clear()
        for seed in self._seeds:
            seed()
        self._hardening.apply(slot)
        if rehearse:
            child.rehearse(self._prelude)
        child.live(
            files.connection,
            files.reports,
            self._prelude,
            self._base_bytes,
            0 if self._hardening.own_users else self._other_threads,
            self._hardening.last_filter,
        )


def _fork() -> int:
    """os.fork, patient where the machine has no room for a process right now."""
    for _ in range(_FORK_ATTEMPTS):
        try:
            return os.fork()
        except OSError:
            time.sleep(0.05)
    return os.fork()


def _threads_of_this_user() -> int:
    """As far as /proc shows them; in a namespace of our own, the kernel counts only what lives there."""
    threads = 0
    try:
        processes = [name for name in os.listdir("/proc") if name.isdecimal()]
    except OSError:
        return 0
    for process in processes:
        try:
            if os.stat(f"/proc/{process}").st_uid == os.getuid():
                threads += len(os.listdir(f"/proc/{process}/task"))
        except OSError:  # it has just ended
            continue
    return threads


class _Files:
    """What connects one child with the judge: a doorbell, a stream of reports, stdin, stdout."""

    def __init__(self) -> None:
        self._doorbell, self.connection = socket.socketpair()
        self._doorbell.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)  # tells the process id as seen from there
        self._read_reports, self.reports = socket.socketpair()
        self.stdin, self.stdout = os.memfd_create("stdin"), os.memfd_create("stdout")

    def for_judge(self) -> list[int]:
        return [self._doorbell.fileno(), self._read_reports.fileno(), self.stdin, self.stdout]

    def close(self) -> None:
        for end in (self._doorbell, self.connection, self._read_reports, self.reports):
            end.close()
        os.close(self.stdin)
        os.close(self.stdout)


def _close_all_but(kept: list[int]) -> None:
    """Close every descriptor but the standard ones and `kept`: those of other children, above all."""
    first = 3
    kept.sort()
    for fd in kept:
        os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, _MAX_DESCRIPTORS)
