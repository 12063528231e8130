"""The world of tool calls: how both methods were tuned there, and how many generations each needs."""

from __future__ import annotations

from studies.evidence.evidence import DATASETS, Evidence
from studies.evidence.markdown import Section
from studies.evidence.pictures import Picture
from studies.evidence.sections.common import SOLID, not_run, opening, pair_panel
from studies.evidence.sections.comparison import (
    AT,
    EVERY_WORLD,
    Pairs,
    last_text,
    on_every_world,
    reach_text,
    records_of,
    times,
    title_of,
)
from studies.evidence.sections.tuning import of

_EFFORT = "Both lists begin with the settings of minicode's recipe, and nothing was tried before."
HELD_OUT = "held_out"


def tuning(evidence: Evidence) -> Section:
    return of(evidence, "tools-tuning", _EFFORT)


def section(evidence: Evidence) -> Section:
    pairs = evidence.pairs("tools")
    if not pairs:
        return not_run(evidence, "tools")
    text = [opening(evidence, "tools"), _hoped_for(pairs, bool(evidence.complete_pairs("tools")))]
    text += [reach_text(pairs, dataset) for dataset in reversed(DATASETS)] + [last_text(pairs)]
    panels = [pair_panel(f"world {world}", pair) for world, pair in pairs.items()]
    picture = Picture("tools", title_of(evidence, "tools"), f"pass@1 against generations. {SOLID}", panels, 3)
    return Section(title_of(evidence, "tools"), "\n\n".join(text), [picture], records_of(pairs))


def _hoped_for(pairs: Pairs, complete: bool) -> str:
    verdict = f" {on_every_world(pairs, HELD_OUT)}." if complete else ""
    return (
        f"Hoped for before anything was run: to held-out pass@1 {AT:g}, GRPO needs at least {EVERY_WORLD:g} times the "
        f"generations of SDPO on every world. **Seen: {times(pairs, HELD_OUT)}.{verdict}**"
    )


def in_short(evidence: Evidence) -> str:
    pairs = evidence.complete_pairs("tools")
    return f"Tool calls, to held-out pass@1 {AT:g}: {times(pairs, HELD_OUT)} times." if pairs else ""
