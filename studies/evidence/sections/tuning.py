"""How both methods were tuned, and what was chosen by which rule."""

from __future__ import annotations

from sdpo.report.figures import GENERATIONS
from sdpo.report.reaching import reach
from studies.evidence.evidence import Evidence
from studies.evidence.layout import settings_file
from studies.evidence.markdown import Section, interval, last
from studies.evidence.pictures import FREE, Picture, PicturePanel
from studies.evidence.reaching import Passes
from studies.evidence.sections.common import curve, name, not_run, opening
from studies.evidence.settings import area, configuration
from studies.evidence.studies import ALGORITHMS
from studies.markdown_table import table

_EFFORT = (
    "The recipes' own settings, with which both lists begin, come from earlier trials on world 0 that were not "
    "recorded: SDPO samples 16 groups of 4 per step, GRPO 8 groups of 8. Each other configuration changes one thing."
)


def section(evidence: Evidence) -> Section:
    return of(evidence, "tuning", _EFFORT)


def of(evidence: Evidence, part: str, effort: str) -> Section:
    """The section of a part that tunes; effort: what its lists come from."""
    runs = evidence.finished(part)
    if not runs:
        return not_run(evidence, part)
    made = evidence.settings.get(part)
    chosen = {} if made is None else {c["run"] for c in made["chosen"].values()}
    rows, panels = [], []
    for algorithm in ALGORITHMS:
        own = [(spec, record) for spec, record in runs if spec.algorithm == algorithm]
        for spec, record in own:
            settings = " ".join(f"`{option}`" for option in configuration(spec)) or "the recipe's own"
            row = [name(algorithm), settings, f"{area(record):.3f}".lstrip("0")]
            row += [reach(Passes.of(record, "train"), 0.5).value.text()]
            row += [interval(last(record, d)) for d in ("train", "held_out")]
            mark = "**" if spec.id in chosen else ""
            rows.append([f"{mark}{cell}{mark}" for cell in row])
        curves = [curve(r, "train", s.variant, FREE[i % len(FREE)]) for i, (s, r) in enumerate(own)]
        if curves:
            panels.append(PicturePanel(f"{name(algorithm)}, training problems", GENERATIONS, "pass@1", curves))
    header = ["", "settings", "mean training pass@1", "generations to .5", "training, last", "held-out, last"]
    text = [opening(evidence, part), effort, table(header, rows)]
    if made is None:
        text.append("Nothing is chosen yet.")
    else:
        at, file = made["made"], settings_file(part)
        text.append(
            f"Bold: chosen for all other parts with this recipe, by this rule: {made['rule']} Fixed at {at['at'][:16]} "
            f"(commit {at['commit']}) in [{file}]({file})."
        )
    title = evidence.studies.parts[part].title
    picture = Picture(part, title, "Training pass@1 of every configuration on world 0.", panels)
    return Section(title, "\n\n".join(text), [picture], [r for _, r in runs])
