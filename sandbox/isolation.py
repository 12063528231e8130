"""The levels of isolation, found at start, and what each means for the fork server and for a child."""

from __future__ import annotations

import os
import resource
from resource import RLIMIT_NOFILE, setrlimit

from . import landlock, linux, namespaces, seccomp
from .levels import AUTOMATIC, LEVELS

_LIBRARIES = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo"]
_READABLE_DEVICES = ["/dev/zero", "/dev/urandom", "/dev/random"]
_WRITABLE_DEVICES = ["/dev/null"]
_DESCRIPTORS = 64


class Found:
    """What this machine offers; a reason in `missing` for what it does not."""

    def __init__(self, level: str) -> None:
        self.level = level
        self.missing: dict[str, str] = {}
        self.landlock_abi = 0
        self.users = 1  # user ids to choose from, one for each child; 1: all keep the own one
        self.first_user = namespaces.FIRST_USER
        self.proc = False


def readable_paths(site_packages: list[str], packages: list[str]) -> list[str]:
    """The standard library, shared libraries, and the packages that programs may import."""
    paths = [os.path.realpath(os.path.dirname(os.__file__))]
    for site in site_packages:
        for package in packages:
            paths += [path for name in (package, package + ".py") if os.path.exists(path := os.path.join(site, name))]
    return paths + [path for path in _LIBRARIES if os.path.exists(path)]


def find(wanted: str, readable: list[str], namespaces_probe: Probe | None = None) -> Found:
    """The strongest level at or below `wanted` ("auto": the strongest of all)."""
    found = Found("none")
    available = {"none"}
    try:
        seccomp.Filter()
        _try(_probe_seccomp)
        available.add("seccomp")
    except OSError as error:
        found.missing["seccomp"] = str(error)
    try:
        found.landlock_abi = landlock.abi()
        available.add("landlock")
    except OSError as error:
        found.missing["landlock"] = str(error)
    if wanted in ("auto", "namespaces"):
        try:
            (namespaces_probe or Probe(_probe_namespaces)).outcome()
            available.add("namespaces")
        except OSError as error:
            found.missing["namespaces"] = str(error)
    if "seccomp" not in available or wanted == "none":
        return found
    allowed = LEVELS if wanted == "auto" else LEVELS[LEVELS.index(wanted) :]
    found.level = next(level for level in allowed if level in available)
    if found.level == "seccomp":
        found.landlock_abi = 0
    if found.level != "namespaces" and os.geteuid() == 0:
        try:
            _try(lambda: _probe_identity(readable))
            found.users, found.first_user = namespaces.USERS, namespaces.OUTSIDE_FIRST
        except OSError as error:
            found.missing["user ids"] = f"programs keep the user root, without its capabilities: {error}"
    return found


class Probe:
    """`action`, run in a process of its own, beside whatever comes next."""

    def __init__(self, action) -> None:  # noqa: ANN001
        self._read, write = os.pipe2(os.O_CLOEXEC)
        self._process_id = os.fork()
        if self._process_id == 0:
            complaint = b"ended unexpectedly"
            try:
                action()
                complaint = b""
            except BaseException as error:
                complaint = str(error).encode()
            finally:
                os.write(write, complaint or b"\0")
                os._exit(0)
        os.close(write)

    def outcome(self) -> None:
        """Wait for the end.  OSError with its complaint if it failed."""
        with os.fdopen(self._read, "rb") as pipe:
            answer = pipe.read()
        os.waitpid(self._process_id, 0)
        if answer != b"\0":
            raise OSError(answer.decode(errors="replace") or "the probe died")


def _try(action) -> None:  # noqa: ANN001
    Probe(action).outcome()


def probe_early(wanted: str) -> Probe | None:
    """Begin to try what `find` will want to know: namespaces take a while, most of it without needing a core."""
    return Probe(_probe_namespaces) if wanted in ("auto", "namespaces") else None


def _probe_seccomp() -> None:
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    seccomp.Filter().install(os.getpid())


def _probe_identity(readable: list[str]) -> None:
    """Whether a user that owns nothing can read what programs need."""
    os.setgroups([])
    os.setresgid(*[namespaces.OUTSIDE_FIRST] * 3)
    os.setresuid(*[namespaces.OUTSIDE_FIRST] * 3)
    for path in readable:
        os.close(os.open(path, os.O_RDONLY))


def _probe_namespaces() -> None:
    namespaces.enter()
    _try(lambda: namespaces.build_root(_LIBRARIES, _READABLE_DEVICES + _WRITABLE_DEVICES, with_proc=True))


def enter_root(found: Found, readable: list[str]) -> bool:
    """New root directory for this process and its children; whether /proc is in it (Landlock keeps it closed)."""
    return namespaces.build_root(readable, _READABLE_DEVICES + _WRITABLE_DEVICES, with_proc=bool(found.landlock_abi))


class Hardening:
    """Prepared by the fork server, applied by each child to itself."""

    def __init__(self, found: Found, readable: list[str], listable: list[str]) -> None:
        self._users, self._first_user = found.users, found.first_user
        self._filter = self.last_filter = None  # the latter is for the child to add once its limits are set
        if found.level == "seccomp":
            linux.prctl(linux.PR_SET_DUMPABLE, 0)  # children: one must not read another's memory through /proc
        if found.level != "none":
            # Before its third version, Landlock does not see O_TRUNC.
            self._filter = seccomp.Filter(read_only=found.landlock_abi < 3)
            self.last_filter = seccomp.LastFilter()
        self._ruleset = -1
        if self._filter is None:
            return
        if found.landlock_abi:
            self._ruleset = landlock.create_ruleset(readable + _READABLE_DEVICES, listable, _WRITABLE_DEVICES)
            self._restrict = landlock.restriction(self._ruleset)
        # What every child inherits need not be done in every child.
        linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if self.own_users:
            os.setgroups([])
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        descriptors = _DESCRIPTORS if most == resource.RLIM_INFINITY else min(_DESCRIPTORS, most)
        self._descriptors = descriptors, descriptors

    @property
    def own_users(self) -> bool:
        """Whether every child gets a user id of its own."""
        return self._filter is not None and self._users > 1

    @property
    def descriptors(self) -> list[int]:
        """Those that `apply` needs, and closes."""
        return [self._ruleset] if self._ruleset >= 0 else []

    def apply(self, slot: int) -> None:
        """Give up, in this order, identity, capabilities, files, system calls.  There is no way back."""
        if self._filter is None:
            return
        if self._users > 1:
            user = self._first_user + slot % self._users
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        linux.drop_capabilities()
        setrlimit(RLIMIT_NOFILE, self._descriptors)
        if self._ruleset >= 0:
            self._restrict()
            os.close(self._ruleset)
        self._filter.install(os.getpid())


def why_not(found: Found, wanted: str) -> str | None:
    """Why `wanted` cannot be had; None where it can."""
    if wanted == found.level or (wanted == "auto" and found.level in AUTOMATIC):
        return None
    reasons = "; ".join(f"{name}: {reason}" for name, reason in found.missing.items())
    if wanted == "auto" and found.level == "seccomp":
        return (
            f"the strongest level here is seccomp ({reasons}), where a program can read every file that you can read; "
            "isolation='seccomp' accepts that"
        )
    if wanted == "auto":
        return f"not even seccomp is available ({reasons}); isolation='none' runs programs without any protection"
    return f"isolation {wanted!r} is not available here ({reasons}); the strongest level is {found.level!r}"
