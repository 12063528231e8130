"""`python -m sdpo.cli`: the `sdpo` command without an installation."""

from __future__ import annotations

import sys

from sdpo.cli import main

sys.exit(main())
