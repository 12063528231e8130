"""Options that a recipe hands on to vLLM and DeepSpeed as they are, beside what sdpo sets itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdpo.errors import UserError


def handed_on(
    own: Mapping[str, Any], given: Mapping[str, Any], option: str, owners: Mapping[str, str], within: str = ""
) -> dict[str, Any]:
    """`own` with `given` beside it, section by section.

    option: where `given` stands in the recipe.  owners: dotted key → the options that decide it, also of keys that are
    not among `own`.

    Raises UserError for a key that is decided already.
    """
    joined = dict(own)
    for key, value in given.items():
        path, there = f"{within}{key}", own.get(key)
        if path not in owners and isinstance(there, Mapping) and isinstance(value, Mapping):
            joined[key] = handed_on(there, value, option, owners, f"{path}.")
        elif path in owners:
            raise UserError(f"{option}.{path} is decided by {owners[path]}: set that, and leave {option}.{path} out.")
        elif key in own:
            raise UserError(f"{option}.{path} cannot be changed, since sdpo needs the value {there!r}: leave it out.")
        else:
            joined[key] = value
    return joined
