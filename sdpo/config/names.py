"""Names that become files and folders: they must stay where they are put."""

from __future__ import annotations

import re

LONGEST = 200  # bytes; a file system takes 255, and a run that is set aside gets a suffix
_NAME = re.compile(r"\w[\w.+=@,~-]*")  # letters and digits of any script; no separators, no spaces, no leading . or -


def check_file_name(option: str, name: str) -> None:
    """Raises ValueError for a name that could lead out of its folder, hide, or be taken for an option."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{option}={name!r} cannot name a folder: take letters, digits and . _ - + = @ , ~, a letter or digit "
            "first. Where runs lie is run.directory"
        )
    if len(name.encode()) > LONGEST:
        raise ValueError(f"{option} is a name of {len(name.encode())} bytes; a folder's may have {LONGEST}")
