"""Messages between the judge, the fork server and the children.

Towards a child: one marshalled tuple (trusted data, fast).  From a child: a JSON header and raw output, since nothing
that a child sends may build an object of its choice.
"""

from __future__ import annotations

import json
import marshal
import socket
import struct
from typing import NamedTuple

_LENGTH = struct.Struct("!Q")
_REPORT = struct.Struct("!IIIddd")
READY = b"R"
RING = b"!"  # there are reports to read
ALONE = {"alone": True}  # header of a report that comes before the first one: only one test can run in this child
_FIRST_READ = 1 << 16

# Messages of the fork server
SPAWNED = struct.Struct("!cI")  # b"C", slot; carries descriptors: doorbell, reports, stdin, stdout
EXITED = struct.Struct("!cIidQ")  # b"X", slot, wait status, CPU seconds, peak resident set in KiB
SPAWN = struct.Struct("!cI?")  # b"S", number of children wanted, whether they rehearse before they say ready


class Report(NamedTuple):
    """What a child says of one test.  All of it is the program's word, unless the program passed the screen."""

    header: dict  # empty for a script that ended normally
    output: bytes
    peak_kib: int = 0
    cpu_s: float = 0.0  # of this test
    cpu_clock_s: float = 0.0  # of the whole child at the end of this test
    clock_s: float = 0.0  # time.monotonic() at the end of this test


def send_job(connection: socket.socket, job: tuple) -> None:
    payload = marshal.dumps(job)
    connection.sendall(_LENGTH.pack(len(payload)) + payload)


def receive_job(connection: socket.socket) -> tuple | None:
    """The job, or None when the judge has closed the connection."""
    buffer = connection.recv(_FIRST_READ)  # nearly always all of it
    if not buffer:
        return None
    end = _LENGTH.size + _LENGTH.unpack_from(buffer)[0]
    if len(buffer) < end:
        buffer = bytearray(buffer)
        while len(buffer) < end:
            chunk = connection.recv(min(end - len(buffer), 1 << 20))
            if not chunk:
                return None
            buffer += chunk
    return marshal.loads(memoryview(buffer)[_LENGTH.size :])


def pack_report(report: Report) -> bytes:
    header, output, *numbers = report
    text = json.dumps(header).encode() if header else b""
    return _REPORT.pack(len(text), len(output), *numbers) + text + output


class ReportReader:
    """Cuts a child's byte stream into reports; distrusts every byte of it."""

    def __init__(self, largest_header: int, largest_output: int) -> None:
        self._largest = (largest_header, largest_output)
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Report]:
        """Complete reports so far.  Raises ValueError for a stream that no child of ours would write."""
        buffer = self._buffer
        buffer += data
        reports = []
        begin = 0
        while len(buffer) - begin >= _REPORT.size:
            header_size, output_size, *numbers = _REPORT.unpack_from(buffer, begin)
            if header_size > self._largest[0] or output_size > self._largest[1]:
                raise ValueError("a report larger than its limit")
            text = begin + _REPORT.size
            output = text + header_size
            if len(buffer) < output + output_size:
                break
            try:
                header = json.loads(buffer[text:output]) if header_size else {}
            except RecursionError:
                raise ValueError("a report nested too deeply") from None
            if not isinstance(header, dict):
                raise ValueError("a report without a header")
            begin = output + output_size
            reports.append(Report(header, bytes(buffer[output:begin]), *numbers))
        del buffer[:begin]
        return reports
