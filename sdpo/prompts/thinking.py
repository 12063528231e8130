"""What a response says outside its thoughts."""

from __future__ import annotations

import re
from collections.abc import Sequence

Tags = tuple[str, str]  # what opens a thought, what closes it

THINK: tuple[Tags, ...] = (("<think>", "</think>"),)


def without_thoughts(response: str, tags: Sequence[Tags] = THINK, opened: bool = False) -> str:
    """`response` without its thoughts: what stands inside a pair of tags, or behind an opening tag that nothing closes.

    tags: the pairs to look for.  opened: the prompt ended inside a thought, so the response begins in it.

    Thoughts nest.  An opening tag that repeats the one right before it (or the prompt's) opens nothing more: models
    write it although their prompt did.  A closing tag that closes nothing ends a thought that began unseen, so
    everything before it goes.
    """
    pairs = {tag: pair for pair in tags for tag in pair}
    if not pairs:
        return response
    depth, current = int(opened), None  # `current`: the pair of the thought that is open; None: the prompt's, any pair
    kept: list[str] = []
    end = repeats = 0  # where the last tag ended; where a repetition of an opening tag would have to begin
    for match in re.finditer("|".join(re.escape(tag) for tag in sorted(pairs, key=len, reverse=True)), response):
        pair, opens = pairs[match.group()], match.group() == pairs[match.group()][0]
        if depth == 0:
            if opens:
                kept.append(response[end : match.start()])
                depth, current = 1, pair
            else:
                kept.clear()
        elif current is None or pair == current:
            current = pair
            if not opens:
                depth -= 1
            elif response[repeats : match.start()].strip():
                depth += 1
        end = match.end()
        if opens:
            repeats = match.end()
    if depth == 0:
        kept.append(response[end:])
    return "".join(kept)
