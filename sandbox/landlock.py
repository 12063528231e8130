"""Landlock: the file system shrinks to the libraries a program may read; no TCP, no signals to the outside."""

from __future__ import annotations

import ctypes
import os
import struct

from . import linux

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_RULE_PATH_BENEATH = 1
_READ_FILE, _READ_DIR, _WRITE_FILE = 1 << 2, 1 << 3, 1 << 1
_RIGHTS_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # number of file-system rights that the kernel knows


def abi() -> int:
    """The kernel's Landlock version.  Raises OSError where there is none."""
    return linux.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))


def create_ruleset(readable: list[str], listable: list[str], writable: list[str]) -> int:
    """A descriptor of a rule set that refuses all but reading beneath `readable`, listing directories beneath
    `listable` (Python searches packages by listing) and writing `writable`."""
    version = abi()
    rights = (1 << _RIGHTS_BY_ABI.get(version, 16)) - 1
    network = 0b11 if version >= 4 else 0
    scoped = 0b11 if version >= 6 else 0
    attributes = struct.pack("=QQQ", rights, network, scoped)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = linux.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size), ctypes.c_uint32(0))
    os.set_inheritable(ruleset, False)
    for path in readable:
        _allow(ruleset, path, _READ_FILE)
    for path in listable:
        _allow(ruleset, path, _READ_DIR)
    for path in writable:
        _allow(ruleset, path, _READ_FILE | _WRITE_FILE)
    return ruleset


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if os.path.isdir(path):
            rights |= _READ_DIR
        attributes = struct.pack("=Qi", rights, fd)
        linux.syscall(
            _ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_RULE_PATH_BENEATH), attributes, ctypes.c_uint32(0)
        )
    finally:
        os.close(fd)


def restriction(ruleset: int) -> linux.Prepared:
    """The call that puts a process under the rules, for good.  Needs PR_SET_NO_NEW_PRIVS."""
    return linux.Prepared(_RESTRICT_SELF, ruleset, 0)
