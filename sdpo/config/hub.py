"""Whether the Hugging Face hub answers, asked once: its library would try each file for half a minute."""

from __future__ import annotations

import os
from functools import cache

PROBE_TIMEOUT_S = 10.0


@cache
def why_offline() -> str:
    """Why only the cache can be used; empty where the hub answers, with whatever status.

    The processes that start later go by the same answer (HF_HUB_OFFLINE).
    """
    import huggingface_hub

    if huggingface_hub.is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    endpoint = huggingface_hub.constants.ENDPOINT
    try:
        huggingface_hub.get_session().head(endpoint, timeout=PROBE_TIMEOUT_S)
    except Exception as error:  # each HTTP library, resolver and proxy has error families of its own
        os.environ["HF_HUB_OFFLINE"] = "1"
        first = (str(error).strip().split("\n") or [""])[0]
        return f"{endpoint} does not answer: {first or type(error).__name__}"
    return ""
