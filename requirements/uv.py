"""Runs uv with pip's own settings, so that an index, proxy or certificate configured for pip counts for uv too.

    python requirements/uv.py PATH/TO/uv ARGUMENTS…

What `pip config list` says (files and PIP_… variables) becomes UV_… variables.  Those that are set already win.
Without pip, its variables alone count.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping

# pip's option: uv's variables, and what separates several values there (pip separates by white space)
VARIABLES: dict[str, tuple[tuple[str, ...], str]] = {
    "index-url": (("UV_DEFAULT_INDEX",), ""),
    "extra-index-url": (("UV_INDEX",), " "),
    "find-links": (("UV_FIND_LINKS",), ","),
    "constraint": (("UV_CONSTRAINT",), " "),
    "trusted-host": (("UV_INSECURE_HOST",), " "),
    "cert": (("SSL_CERT_FILE",), ""),
    "client-cert": (("SSL_CLIENT_CERT",), ""),
    "proxy": (("HTTP_PROXY", "HTTPS_PROXY"), ""),
    "timeout": (("UV_HTTP_TIMEOUT",), ""),
    "retries": (("UV_HTTP_RETRIES",), ""),
    "keyring-provider": (("UV_KEYRING_PROVIDER",), ""),
}
SWITCHES = {"no-cache-dir": "UV_NO_CACHE", "require-hashes": "UV_REQUIRE_HASHES"}
# Variables of uv that say the same: whoever has set one of them has configured uv.
SAME = {"UV_DEFAULT_INDEX": "UV_INDEX_URL", "UV_INDEX": "UV_EXTRA_INDEX_URL", "SSL_CERT_FILE": "SSL_CERT_DIR"}


def pip_settings(lines: Iterable[str]) -> dict[str, str]:
    """Option → value, from the lines of `pip config list`.  As in pip: [install] over [global], variables over both."""
    ranks = {"global": 0, "install": 1, ":env:": 2}
    found: dict[str, tuple[int, str]] = {}
    for line in lines:
        match = re.fullmatch(r"(global|install|:env:)\.([\w-]+)=(.*)", line.strip())
        if match is None:
            continue
        section, name, value = match.groups()
        name = name.lower().replace("_", "-").removeprefix("default-")  # PIP_DEFAULT_TIMEOUT is the timeout
        if ranks[section] >= found.get(name, (-1, ""))[0]:
            found[name] = (ranks[section], str(ast.literal_eval(value)))
    return {name: value for name, (_, value) in found.items()}


def uv_variables(settings: Mapping[str, str], present: Mapping[str, str]) -> dict[str, str]:
    """The variables to add for uv; `present` is the environment, which wins."""
    add: dict[str, str] = {}
    for option, (names, separator) in VARIABLES.items():
        value = settings.get(option, "").strip()
        for name in names:
            taken = name in present or name.lower() in present or SAME.get(name, "") in present
            if value and not taken:
                add[name] = separator.join(value.split()) if separator else value
    for option, name in SWITCHES.items():
        if _true(settings.get(option, "")) and name not in present:
            add[name] = "1"
    if "cache-dir" in settings and "UV_CACHE_DIR" not in present:  # somebody has moved it to where there is room
        add["UV_CACHE_DIR"] = os.path.join(os.path.expanduser(settings["cache-dir"]), "uv")
    if "UV_INDEX" in add and "UV_INDEX_STRATEGY" not in present:
        add["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # all indexes are asked, as by pip; versions are exact here
    return add


def uv_arguments(settings: Mapping[str, str]) -> list[str]:
    """Options of `uv pip sync|install|compile` that have no variable."""
    given = ["--no-index"] if _true(settings.get("no-index", "")) else []
    for option in ("no-binary", "only-binary"):
        for name in settings.get(option, "").replace(",", " ").split():
            given += [f"--{option}", name]
    return given


def _true(text: str) -> bool:
    return text.strip().lower() in ("1", "true", "yes", "on", "y", "t")


def _config_list() -> list[str]:
    done = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True)
    if done.returncode == 0:
        return done.stdout.splitlines()
    names = [name for name in os.environ if name.startswith("PIP_")]
    return [f":env:.{name[4:].lower().replace('_', '-')}={os.environ[name]!r}" for name in names]


def main(command: list[str]) -> None:
    settings = pip_settings(_config_list())
    given = uv_arguments(settings) if command[1:2] == ["pip"] and command[2] in ("sync", "install", "compile") else []
    os.execve(command[0], [*command, *given], {**os.environ, **uv_variables(settings, os.environ)})


if __name__ == "__main__":
    main(sys.argv[1:])
