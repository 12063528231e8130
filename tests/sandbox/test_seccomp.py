"""The filters of system calls, run as the kernel would run them, on every call that there is."""

from __future__ import annotations

import errno
import resource
import signal
import struct

import pytest

from sandbox import linux, seccomp

OWN, OTHER = 4711, 4712
PLAIN = (1 << 64) - 1  # in every argument: nothing that a test of arguments lets pass
ALLOWED, REFUSED, ABSENT, KILLED = "allowed", "refused", "absent", "killed"


def run(code: bytes, number: int, *arguments: int, machine: str = linux.MACHINE) -> tuple[int, int]:
    """What a filter returns, and after how many instructions; classic BPF with the few kinds that occur."""
    data = struct.pack("=IIQ6Q", number, seccomp._ARCHITECTURE[machine], 0, *(*arguments, *[0] * 6)[:6])
    place = accumulator = steps = 0
    while True:
        kind, if_true, if_false, constant = struct.unpack_from("=HBBI", code, 8 * place)
        place, steps = place + 1, steps + 1
        if kind == seccomp._RETURN:
            return constant, steps
        if kind == seccomp._LOAD:
            accumulator = struct.unpack_from("=I", data, constant)[0]
        elif kind == seccomp._JUMP:
            place += constant
        else:
            tests = {
                seccomp._EQUAL: accumulator == constant,
                seccomp._AT_LEAST: accumulator >= constant,
                seccomp._ANY_BIT: accumulator & constant != 0,
            }
            place += if_true if tests[kind] else if_false


def verdict(code: bytes, number: int, *arguments: int, machine: str = linux.MACHINE) -> str:
    known = {
        seccomp._ALLOW: ALLOWED,
        seccomp._ERRNO | errno.EPERM: REFUSED,
        seccomp._ERRNO | errno.ENOSYS: ABSENT,
        seccomp._KILL: KILLED,
    }
    return known[run(code, number, *arguments, machine=machine)[0]]


@pytest.fixture(params=["x86_64", "aarch64"])
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(linux, "MACHINE", request.param)
    return request.param


def code_of(filter_: seccomp.Filter | seccomp.LastFilter, own: int = OWN) -> bytes:
    for place in getattr(filter_, "_places", ()):
        filter_._words[place] = own
    return bytes(filter_._words.cast("B"))


def numbers_of(table: dict[str, tuple[int, int]]) -> dict[int, str]:
    return {numbers[seccomp._column()]: name for name, numbers in table.items() if numbers[seccomp._column()] >= 0}


def test_only_what_is_listed_passes(machine: str) -> None:
    code = code_of(seccomp.Filter())
    allowed = numbers_of(seccomp._ALLOWED)
    opening = {numbers[seccomp._column()] for numbers in (seccomp._OPEN, seccomp._OPENAT)}
    for number in (*range(1200), *(0x40000000 + n for n in range(600)), 0xFFFFFFFF):
        told = verdict(code, number, *[PLAIN] * 6, machine=machine)
        if number in allowed or number in opening:
            assert told == ALLOWED, (number, allowed.get(number))
        elif number == seccomp._CLONE3[seccomp._column()]:
            assert told == ABSENT
        else:
            assert told == REFUSED, number


def test_foreign_calling_conventions_are_deadly() -> None:
    other = next(name for name in seccomp._ARCHITECTURE if name != linux.MACHINE)
    assert verdict(code_of(seccomp.Filter()), 0, machine=other) == KILLED


def test_arguments_decide(machine: str) -> None:
    code, column = code_of(seccomp.Filter()), seccomp._column()

    def told(numbers: tuple[int, int], *arguments: int) -> str:
        return verdict(code, numbers[column], *arguments, machine=machine)

    for numbers, place in ((seccomp._KILL_CALL, 1), (seccomp._TGKILL, 2)):
        before = [OWN] * place
        assert told(numbers, *before, signal.SIGTERM) == ALLOWED
        assert told(numbers, *before, signal.SIGKILL) == REFUSED
        assert told(numbers, OTHER, *before[1:], signal.SIGTERM) == REFUSED
        assert told(numbers, 0, *before[1:], signal.SIGTERM) == REFUSED
    for numbers in seccomp._ABOUT_A_PROCESS:
        assert [told(numbers, who) for who in (0, OWN, OTHER)] == [ALLOWED, ALLOWED, REFUSED]
    assert told(seccomp._CLONE, 0x00010000 | 0x00000400) == ALLOWED
    assert told(seccomp._CLONE, 0x00010000) == REFUSED
    assert told(seccomp._CLONE, signal.SIGCHLD) == REFUSED
    assert told(seccomp._CLONE, 0x00010000 | 0x00000400 | 0x10000000) == REFUSED
    assert told(seccomp._SENDTO, 3, 0, 0, 0, 0) == ALLOWED
    assert told(seccomp._SENDTO, 3, 0, 0, 0, 1 << 40) == REFUSED
    assert told(seccomp._PRLIMIT64, 0) == ALLOWED and told(seccomp._PRLIMIT64, OTHER) == REFUSED


@pytest.mark.parametrize("flags", [1, 2, 0o100, 0o1000])
def test_without_landlock_nothing_is_opened_for_writing(machine: str, flags: int) -> None:
    code, column = code_of(seccomp.Filter(read_only=True)), seccomp._column()
    assert verdict(code, seccomp._OPENAT[column], 0, 0, 0, machine=machine) == ALLOWED
    assert verdict(code, seccomp._OPENAT[column], 0, 0, flags, machine=machine) == REFUSED


def test_the_last_filter_takes_limits_and_filters_away(machine: str) -> None:
    code, column = code_of(seccomp.LastFilter()), seccomp._column()
    changed = {seccomp._SETRLIMIT[column], seccomp._PRLIMIT64[column], seccomp._PRCTL[column]}
    for number in range(1200):
        told = verdict(code, number, *[PLAIN] * 6, machine=machine)
        assert told == (REFUSED if number in changed else ALLOWED), number
    stack, cpu = resource.RLIMIT_STACK, resource.RLIMIT_CPU
    assert verdict(code, seccomp._PRLIMIT64[column], 0, stack, 1, machine=machine) == ALLOWED
    assert verdict(code, seccomp._PRLIMIT64[column], 0, cpu, 0, machine=machine) == ALLOWED  # it only asks
    assert verdict(code, seccomp._PRLIMIT64[column], 0, cpu, 1, machine=machine) == REFUSED
    assert verdict(code, seccomp._PRCTL[column], seccomp._SET_SECCOMP, machine=machine) == REFUSED


def test_a_call_is_found_in_few_steps() -> None:
    """Each child pays for every instruction, and the kernel runs a filter once for every call as it is installed."""
    code = code_of(seccomp.Filter())
    steps = [run(code, number)[1] for number in numbers_of(seccomp._ALLOWED)]
    assert max(steps) < 16
