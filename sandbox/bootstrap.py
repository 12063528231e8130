"""Start the fork server in a bare interpreter: `python -I -S bootstrap.py CONTROL_FD SETTINGS_JSON`.

The package's `__init__` brings in the judge's side (threads, asyncio, subprocess); an empty stand-in for the package
keeps all of that out of the fork server, whose size every child pays for.
"""

from __future__ import annotations

import json
import os
import sys
import types

package = types.ModuleType("sandbox")
package.__path__ = [os.path.dirname(os.path.abspath(__file__))]
sys.modules["sandbox"] = package

from sandbox import isolation, linux  # noqa: E402

settings = json.loads(sys.argv[2])
linux.leave_terminal()
probe = isolation.probe_early(settings["isolation"])

from sandbox import server  # noqa: E402

sys.dont_write_bytecode = True  # of these modules alone: compiling them takes as long as all the rest of the start
server.main(int(sys.argv[1]), settings, probe)
