"""The yardstick for a cold pool: a plain fork server, which forks and hardens one child per program when it is asked.

    python -I -S benchmarks/fork_server.py < lines of {"code": …, "input": …}

The same prelude, Landlock rules and seccomp filter as in `sandbox`, and nothing else of it: no namespaces, no children
made ready, no judging.  One line of JSON with the output for every program.  A program may import numpy, for itself.
"""

import io
import json
import os
import sys
import sysconfig
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sandbox import isolation  # noqa: E402
from sandbox.prelude import install_prelude  # noqa: E402


def main() -> None:
    install_prelude()
    site_packages = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    sys.path.extend(site_packages)
    readable = isolation.readable_paths(site_packages, ["numpy", "numpy.libs"])
    found = isolation.find("landlock", readable)
    hardening = isolation.Hardening(found, readable, site_packages)
    for line in sys.stdin:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            hardening.apply(0)
            _run(json.loads(line), write)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            printed = pipe.read()
        os.waitpid(child, 0)
        print(json.dumps(printed.decode()), flush=True)


def _run(job: dict, write: int) -> None:
    sys.stdin, sys.stdout = io.StringIO(job["input"]), io.StringIO()
    exec(compile(job["code"], "<program>", "exec"), {"__name__": "__main__"})
    os.write(write, sys.stdout.getvalue().encode())
    os._exit(0)


main()
