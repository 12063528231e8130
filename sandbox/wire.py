"""Messages between the judge, the fork server and the children.

Towards a child: one marshalled tuple (trusted data, fast).  From a child: a JSON header, then raw output and the text
of a returned value (its length is the header's "v"), since nothing that a child sends may build an object of its
choice.
"""

from __future__ import annotations

import json
import marshal
import socket
import struct
from typing import NamedTuple

_LENGTH = struct.Struct("!Q")
_REPORT = struct.Struct("!IIIddd")
MAX_HEADER = 1 << 18  # bytes, whatever the tests are; see `failure.MAX_MESSAGE`
VALUE_ALLOWANCE = 1000  # characters of a returned value beyond the output limit
READY = b"R"
RING = b"!"  # there are reports to read
RELAY = {"s": "relay"}  # header of a message between a program and its tests
ALONE = {"alone": True}  # header of a report that comes before the first one: only one test can run in this child
_FIRST_READ = 1 << 16
# What a child does with its job: run a program's tests, be the program of an assertion test, be its tests
SERIES, CANDIDATE, EXAMINER = "series", "candidate", "examiner"

# Messages of the fork server
SPAWNED = struct.Struct("!cI")  # b"C", slot; carries descriptors: doorbell, reports, stdin, stdout
EXITED = struct.Struct("!cIidQ")  # b"X", slot, wait status, CPU seconds, peak resident set in KiB
# b"S", number of children wanted, whether they rehearse before they say ready, whether for assertion tests
SPAWN = struct.Struct("!cI??")


class Report(NamedTuple):
    """What a child says of one test.  All of it is the program's word."""

    header: dict  # empty for a script that ended normally
    output: bytes
    peak_kib: int = 0
    cpu_s: float = 0.0  # of this test
    cpu_clock_s: float = 0.0  # of the whole child at the end of this test
    clock_s: float = 0.0  # time.monotonic() at the end of this test
    value: bytes = b""  # what a function returned; see `sandbox.values`


def send_job(connection: socket.socket, job: tuple) -> None:
    payload = marshal.dumps(job)
    connection.sendall(_LENGTH.pack(len(payload)) + payload)


def receive_job(connection: socket.socket, buffer: bytearray) -> tuple | None:
    """The job, or None when the judge has closed the connection; `buffer` keeps what came behind it."""
    try:
        return marshal.loads(receive_message(connection, buffer))
    except EOFError:
        return None


def pack_message(text: bytes) -> bytes:
    """What the judge hands on to a child that has its job already."""
    return _LENGTH.pack(len(text)) + text


def receive_message(connection: socket.socket, buffer: bytearray) -> bytes:
    """The next message; `buffer` keeps what came behind it.  Raises EOFError when the judge has gone."""
    end = _LENGTH.size
    while len(buffer) < end or len(buffer) < (end := _LENGTH.size + _LENGTH.unpack_from(buffer)[0]):
        chunk = connection.recv(_FIRST_READ if not buffer else 1 << 20)
        if not chunk:
            raise EOFError
        buffer += chunk
    message = bytes(buffer[_LENGTH.size : end])
    del buffer[:end]
    return message


def pack_report(report: Report) -> bytes:
    header, output, *numbers, value = report
    if value:
        header = header | {"v": len(value)}
    text = json.dumps(header).encode() if header else b""
    if len(text) > MAX_HEADER:
        text = json.dumps({"s": header.get("s"), "e": "Exception", "m": "a message too long to report"}).encode()
    return _REPORT.pack(len(text), len(output) + len(value), *numbers) + text + output + value


class ReportReader:
    """Cuts a child's byte stream into reports; distrusts every byte of it."""

    def __init__(self, output_limit: int) -> None:
        self._largest = (MAX_HEADER, 2 * output_limit + VALUE_ALLOWANCE)
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Report]:
        """Complete reports so far.  Raises ValueError for a stream that no child of ours would write."""
        buffer = self._buffer
        buffer += data
        reports = []
        begin = 0
        while len(buffer) - begin >= _REPORT.size:
            header_size, rest_size, *numbers = _REPORT.unpack_from(buffer, begin)
            if header_size > self._largest[0] or rest_size > self._largest[1]:
                raise ValueError("a report larger than its limit")
            text = begin + _REPORT.size
            output = text + header_size
            end = output + rest_size
            if len(buffer) < end:
                break
            rest = bytes(buffer[output:end])
            if header_size:
                header = self._header(buffer[text:output])
                size = header.get("v", 0)
                if type(size) is not int or not 0 <= size <= rest_size:
                    raise ValueError("a value longer than its report")
                reports.append(Report(header, rest[: rest_size - size], *numbers, rest[rest_size - size :]))
            else:
                reports.append(Report({}, rest, *numbers))
            begin = end
        del buffer[:begin]
        return reports

    @staticmethod
    def _header(text: bytearray) -> dict:
        try:
            header = json.loads(text)
        except RecursionError:
            raise ValueError("a report nested too deeply") from None
        if not isinstance(header, dict):
            raise ValueError("a report without a header")
        return header
