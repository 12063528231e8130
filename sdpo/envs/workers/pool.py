"""The driver's side of a pool: many calls at once, each with its time limit, none behind one that hangs.

`workers` calls run at a time.  One that turns out to wait for something (a sleep, a server), or to compute far longer
than calls usually take, gives its place to the next at once and goes on beside it, the latter on cores that nobody else
wants; so the number of processes follows what calls do.  A call may use its time limit of what it could have run: time
in the queue for a core is not counted until it has cost the limit's half.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import resource
import select
import socket
import subprocess
import sys
import tempfile
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, get_args

import sdpo
from sdpo.envs.workers import linux, wire
from sdpo.envs.workers.admission import Admission, Place
from sdpo.errors import UserError

IMPORT_LIMIT_S = 120.0  # of the function's module
START_LIMIT_S = 30.0  # of a forked worker, on a busy machine
REPORT_LIMIT_S = 2.0  # until the server says how a worker ended

Fault = Literal["nonsense", "output", "processes"]  # that a worker found by itself
Kind = Literal["value", "error", "crash", "timeout"] | Fault
FAULTS: tuple[Fault, ...] = get_args(Fault)


@dataclass(frozen=True)
class Reply:
    """What became of a call."""

    kind: Kind
    value: Any = None
    message: str = ""  # what went wrong, in one line
    traceback: str = ""
    output: str = ""  # the beginning of what it printed


class Garbled(Exception):
    """What came from a worker is no message: something else wrote into its channel."""


class Worker:
    """A process that answers one call at a time, as the driver sees it."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number, self.reader, self.writer = number, reader, writer
        self.pid = 0
        self.died: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()

    async def read(self) -> dict[str, Any]:
        """Raises EOFError where the process is gone, Garbled for what no worker writes."""
        try:
            size = wire.LENGTH.unpack(await self.reader.readexactly(wire.LENGTH.size))[0]
            if size > 2 * wire.MAX_REPLY:
                raise Garbled
            message = json.loads(await self.reader.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise EOFError from error
        except ValueError as error:
            raise Garbled from error
        if not isinstance(message, dict):
            raise Garbled
        return message


class WorkerPool:
    """Calls of one function, named as `sdpo.envs.reference` has it.

    adapter: `module:function` of this package that is called with the function and the arguments in its place, and
    makes JSON of what it returns; it raises Nonsense where that cannot be.
    """

    def __init__(
        self,
        function: str,
        *,
        option: str,
        time_limit_s: float,
        workers: int | None = None,
        adapter: str | None = None,
    ) -> None:
        self.function, self.option, self.adapter = function, option, adapter
        self.time_limit_s = time_limit_s
        self.admission = Admission(workers or os.cpu_count() or 1, time_limit_s)
        self.output = ""  # what the import printed
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting: asyncio.Lock | None = None
        self._idle: list[Worker] = []
        self._workers: dict[int, Worker] = {}
        self._count = 0
        self._unsent: deque[tuple[bytes, int | None]] = deque()

    # ------------------------------------------------------------------------------------------- start and end

    def start(self) -> None:
        """Start the server and wait until it has imported the function.  Raises UserError where it cannot."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, tempfile.TemporaryFile() as crash:
            root = str(Path(sdpo.__file__).parents[1])
            path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
            code = f"from sdpo.envs.workers.server import main; main({theirs.fileno()}, {crash.fileno()})"
            server = subprocess.Popen(
                [sys.executable, "-P", "-c", code],
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), crash.fileno()),
            )
            theirs.close()
            spec = {"function": self.function, "option": self.option, "adapter": self.adapter, "path": sys.path}
            try:
                ours.sendall(json.dumps(spec).encode())
                said = self._imported(ours, server, crash)
            except BaseException:
                ours.close()
                server.kill()
                server.wait()
                raise
        self.output = said["output"]
        ours.setblocking(False)
        self._server, self._control = server, ours
        _allow_files(4 * self.admission.most)

    def _imported(self, control: socket.socket, server: subprocess.Popen[bytes], crash: IO[bytes]) -> dict[str, Any]:
        named = f"{self.option}={self.function}"
        if not select.select([control], [], [], IMPORT_LIMIT_S)[0]:
            raise UserError(
                f"{named} was not imported within {IMPORT_LIMIT_S:g} s. Find out what its module waits for."
            )
        try:
            message = control.recv(wire.MAX_CONTROL)
        except ConnectionError:
            message = b""
        if not message:
            status = server.wait()
            how = linux.how_it_ended(-status if status < 0 else status << 8)
            crash.seek(0)
            where = crash.read(wire.MAX_TEXT).decode(errors="replace")
            raise UserError(f"{named} cannot be imported: {how}.\n{where}".rstrip())
        said: dict[str, Any] = json.loads(message)
        if "ready" in said:
            return said
        if said["traceback"]:
            raise UserError(f"{named} cannot be imported:\n{said['traceback']}")
        raise UserError(said["failed"])

    def close(self) -> None:
        """End all workers, with all that they started."""
        self._leave_loop()
        if self._control is not None:
            self._control.close()  # which the server takes as its end
            self._control = None
        if self._server is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._server.wait(REPORT_LIMIT_S)
            self._server.kill()
            self._server.wait()
            self._server = None

    def _leave_loop(self) -> None:
        """Forget the workers, and whoever waits for one of them."""
        loop = None if self._loop is None or self._loop.is_closed() else self._loop
        if loop is not None and self._control is not None:
            loop.remove_reader(self._control)
            loop.remove_writer(self._control)
        for worker in self._workers.values():
            with contextlib.suppress(RuntimeError):  # its loop is closed
                worker.writer.transport.abort()
            if loop is not None and not worker.died.done():
                worker.died.set_result(("the server of the workers is gone", ""))
        for _, fd in self._unsent:
            if fd is not None:
                os.close(fd)
        self._workers, self._idle, self._loop = {}, [], None
        self._unsent.clear()

    async def _attach(self) -> None:
        """Be at home in the running loop, with a server that is alive."""
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        if self._loop is not None or self._starting is None:  # nobody of another loop waits any more
            old = list(self._workers)
            self._leave_loop()
            self._unsent.extend((json.dumps({"end": number}).encode(), None) for number in old)
            self._starting = asyncio.Lock()
            self.admission.reset()
        async with self._starting:
            if self._loop is loop:
                return
            if self._control is None:
                await asyncio.to_thread(self.close)
                await asyncio.to_thread(self.start)
            assert self._control is not None
            self._loop = loop
            loop.add_reader(self._control, self._hear)
            self._flush()

    # ------------------------------------------------------------------------------------------------ the server

    def _hear(self) -> None:
        """What the server says: how workers ended."""
        assert self._control is not None
        try:
            message = self._control.recv(wire.MAX_CONTROL)
        except BlockingIOError:
            return
        except ConnectionError:
            message = b""
        if not message:
            self._leave_loop()
            self._control.close()  # the next call starts another one
            self._control = None
            return
        said = json.loads(message)
        worker = self._workers.pop(said["died"], None)
        if worker is not None and self._loop is not None:
            if worker in self._idle:
                self._idle.remove(worker)
            self._loop.call_later(0.2, worker.writer.transport.abort)  # after a last answer, if one is under way
            if not worker.died.done():
                worker.died.set_result((said["how"], said["traceback"]))

    def _post(self, message: dict[str, Any], fd: int | None = None) -> None:
        self._unsent.append((json.dumps(message).encode(), fd))
        self._flush()

    def _flush(self) -> None:
        if self._control is None or self._loop is None:
            return
        while self._unsent:
            message, fd = self._unsent[0]
            try:
                socket.send_fds(self._control, [message], [] if fd is None else [fd])
            except BlockingIOError:
                self._loop.add_writer(self._control, self._flush)
                return
            except OSError:  # it is gone, which `_hear` sees
                pass
            self._unsent.popleft()
            if fd is not None:
                os.close(fd)
        self._loop.remove_writer(self._control)

    async def _worker(self) -> Worker:
        """An idle worker, or a new one.  Raises EOFError where none comes to life."""
        if self._idle:
            return self._idle.pop()
        await self._attach()
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        self._count += 1
        worker = self._workers[self._count] = Worker(self._count, reader, writer)
        self._post({"fork": worker.number}, theirs.detach())
        try:
            worker.pid = (await asyncio.wait_for(worker.read(), START_LIMIT_S))["pid"]
        except TimeoutError as error:
            self._end(worker)
            raise EOFError from error
        return worker

    def _end(self, worker: Worker) -> None:
        """Have it killed, with all that it started; whoever asks is not kept waiting."""
        worker.writer.transport.abort()
        self._post({"end": worker.number})

    # --------------------------------------------------------------------------------------------------- a call

    async def call(self, *arguments: Any) -> Reply:
        """What the function makes of the arguments, or why it made nothing.  Raises nothing that is the function's."""
        try:
            await self._attach()
        except UserError as error:
            return Reply("crash", message=str(error))
        async with self.admission.place() as place:
            worker = None
            try:
                payload = wire.pack(pickle.dumps(arguments))
            except Exception as error:  # whatever the objects in it raise
                return Reply("error", message=f"its arguments cannot be sent to another process: {error}")
            try:
                worker = await self._worker()
                return await self._ask(worker, payload, place)
            except UserError as error:  # the server had died, and its module cannot be imported any more
                return Reply("crash", message=str(error))
            except Garbled:
                if worker is not None:
                    self._end(worker)
                return Reply("crash", message="something wrote into the channel between its process and this one")
            except EOFError:
                how, where = "no worker could be started", ""
                if worker is not None:
                    with contextlib.suppress(TimeoutError):
                        how, where = await asyncio.wait_for(asyncio.shield(worker.died), REPORT_LIMIT_S)
                    self._end(worker)
                return Reply("crash", message=how, traceback=where)
            except asyncio.CancelledError:
                if worker is not None:
                    self._end(worker)
                raise

    async def _ask(self, worker: Worker, payload: bytes, place: Place) -> Reply:
        reply = asyncio.ensure_future(self._reply(worker, payload))
        place.watch(worker.pid)
        try:
            while not reply.done():
                await asyncio.wait([reply], timeout=place.left())
                if not reply.done() and place.expired():
                    self._end(worker)
                    return Reply("timeout", message=f"it took longer than {self.time_limit_s:g} s")
        finally:
            if not reply.done():
                reply.cancel()
            place.done()
        made = reply.result()
        if not {"value", "error", *FAULTS} & set(made):
            raise Garbled
        computed = place.computed()
        if made.get("retire") or place.demoted or len(self._idle) >= self.admission.workers:
            self._end(worker)
        else:
            self._idle.append(worker)
        printed = made.get("printed", "")
        if "error" in made:
            return Reply("error", None, made["error"]["what"], made["error"]["traceback"], printed)
        for kind in FAULTS:
            if kind in made:
                return Reply(kind, None, made[kind], "", printed)
        self.admission.learn(computed)
        return Reply("value", made["value"], output=printed)

    @staticmethod
    async def _reply(worker: Worker, payload: bytes) -> dict[str, Any]:
        try:
            worker.writer.write(payload)
            await worker.writer.drain()
        except ConnectionError as error:
            raise EOFError from error
        return await worker.read()


def _allow_files(wanted: int) -> None:
    """Every worker costs the driver a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))
