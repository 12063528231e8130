"""The comparison, on the worlds of part `comparison` or of part `worlds`."""

from __future__ import annotations

import math

from sdpo.report.bounds import UNKNOWN, Bound
from sdpo.report.curves import THRESHOLDS, mean_curve
from sdpo.report.figures import GENERATIONS
from sdpo.report.reaching import reach
from sdpo.tracking.known import is_known
from studies.evidence.evidence import DATASETS, TITLES, Evidence
from studies.evidence.markdown import Section, interval, last
from studies.evidence.pictures import COLOURS, Bar, Curve, Picture, PicturePanel
from studies.evidence.reaching import Passes, median_ratio, reach_ratio
from studies.evidence.record import Record
from studies.evidence.sections import forgetting
from studies.evidence.sections.common import listed, name, not_run, opening, pair_panel
from studies.markdown_table import table

Pairs = dict[int, dict[str, Record]]
EVERY_WORLD, MEDIAN, AT = 2.0, 4.0, 0.5  # what was hoped for before anything was run: ratios at training pass@1 .5
_DATASET = "train"


def section(evidence: Evidence) -> Section:
    pairs = evidence.pairs("comparison")
    if not pairs:
        return not_run(evidence, "comparison")
    text = [opening(evidence, "comparison"), hoped_for(pairs, bool(evidence.complete_pairs("comparison")))]
    text += [reach_text(pairs, dataset) for dataset in DATASETS]
    text += [last_text(pairs), forgetting.ceiling(evidence), _time_text(pairs)]
    pictures = [_picture(pairs, "generations", GENERATIONS), _picture(pairs, "wall_clock_s", "wall clock (s)")]
    return Section(title_of(evidence, "comparison"), "\n\n".join(text), pictures, records_of(pairs))


def fresh(evidence: Evidence) -> Section:
    """The same on the worlds that nobody tuned on."""
    pairs = evidence.pairs("worlds")
    if not pairs:
        return not_run(evidence, "worlds")
    text = [opening(evidence, "worlds"), hoped_for(pairs, bool(evidence.complete_pairs("worlds")))]
    text += [reach_text(pairs, dataset) for dataset in DATASETS] + [last_text(pairs)]
    caption = (
        "pass@1 against generations on each world. Solid: training problems; thin and dashed: held-out problems. Last "
        "panel: generations that GRPO needs for each one of SDPO's to training pass@1 .5, with its interval; an arrow "
        "is an open end."
    )
    panels = [pair_panel(f"world {world}", pair) for world, pair in pairs.items()] + [_ratio_panel(pairs)]
    picture = Picture("worlds", "Worlds that nobody tuned on", caption, panels, 3)
    return Section(title_of(evidence, "worlds"), "\n\n".join(text), [picture], records_of(pairs))


def hoped_for(pairs: Pairs, complete: bool) -> str:
    """The hope and what came out of it, in one sentence each; the verdict follows from the bounds of all worlds."""
    each = {world: world_ratio(pair, AT) for world, pair in pairs.items()}
    middle = median_ratio(passes_of(pairs, _DATASET), AT)
    seen = ", ".join(f"world {world}: {ratio.value.text('{:.1f}')}" for world, ratio in each.items())
    verdict = f" {on_every_world(pairs)}; in the median: {at_least(middle.value, MEDIAN)}." if complete else ""
    return (
        f"Hoped for before anything was run: to training pass@1 {AT:g}, GRPO needs at least {EVERY_WORLD:g} times the "
        f"generations of SDPO on every world, and at least {MEDIAN:g} times in the median. **Seen: {seen}; median "
        f"{middle.text('{:.2f}')}.{verdict}**"
    )


def on_every_world(pairs: Pairs, dataset: str = _DATASET) -> str:
    """ "On every world: yes": whether GRPO needs at least EVERY_WORLD times the generations."""
    verdicts = {at_least(world_ratio(pair, AT, dataset).value, EVERY_WORLD) for pair in pairs.values()}
    return f"On every world: {'no' if 'no' in verdicts else 'yes' if verdicts == {'yes'} else 'undecided'}"


def times(pairs: Pairs, dataset: str = _DATASET) -> str:
    """ "3.3, 4.0 and 4.1 (median 3.96 [3.30, 4.52])": generations to pass@1 .5, GRPO's by SDPO's."""
    each = listed(world_ratio(pair, AT, dataset).value.text("{:.1f}") for pair in pairs.values())
    return f"{each} (median {median_ratio(passes_of(pairs, dataset), AT).text('{:.2f}')})"


def at_least(value: Bound, threshold: float) -> str:
    """ "yes", "no", or "undecided" where the bounds allow both."""
    if value.low >= threshold and value != UNKNOWN:
        return "yes"
    return "no" if value.high < threshold else "undecided"


def world_ratio(pair: dict[str, Record], threshold: float, dataset: str = _DATASET):
    return reach_ratio(Passes.of(pair["grpo"], dataset), Passes.of(pair["sdpo"], dataset), threshold)


def passes_of(pairs: Pairs, dataset: str) -> dict[int, tuple[Passes, Passes]]:
    return {w: (Passes.of(p["grpo"], dataset), Passes.of(p["sdpo"], dataset)) for w, p in pairs.items()}


def reach_text(pairs: Pairs, dataset: str) -> str:
    rows = []
    for threshold in THRESHOLDS:
        for world, pair in pairs.items():
            times = [reach(Passes.of(pair[a], dataset), threshold).text() for a in ("sdpo", "grpo")]
            rows.append([f"{threshold:g}", world, *times, world_ratio(pair, threshold, dataset).text("{:.1f}")])
        if len(pairs) > 1:
            middle = median_ratio(passes_of(pairs, dataset), threshold)
            rows.append([f"{threshold:g}", "median", "", "", f"**{middle.text('{:.1f}')}**"])
    return f"Generations until {TITLES[dataset]} pass@1, and their ratio:\n\n" + table(
        ["pass@1", "world", "SDPO", "GRPO", "GRPO / SDPO"], rows
    )


def last_text(pairs: Pairs) -> str:
    rows = []
    for world, pair in pairs.items():
        for algorithm, record in pair.items():
            cells = [interval(last(record, dataset, k)) for dataset in DATASETS for k in (1, 4)]
            rows.append([world, name(algorithm), *cells])
    header = ["world", "", *(f"{TITLES[dataset]} pass@{k}" for dataset in DATASETS for k in (1, 4))]
    return "At the last evaluation:\n\n" + table(header, rows)


def _time_text(pairs: Pairs) -> str:
    """Seconds of training and evaluation, start-up left out."""
    rows = []
    for world, pair in pairs.items():
        cells = []
        for algorithm in ("sdpo", "grpo"):
            passes = Passes.of(pair[algorithm], _DATASET, axis="wall_clock_s")
            cells.append(reach(passes, AT).value.text())
        rows.append([world, *cells, *(f"{step_seconds(pair[a]):.2f}" for a in ("sdpo", "grpo"))])
    header = ["world", "SDPO, s to .5", "GRPO, s to .5", "SDPO, s per step", "GRPO, s per step"]
    return (
        "Seconds of training and evaluation until training pass@1 .5, and median seconds of a step (generate, judge, "
        "update, publish). The machine did other work at times, so that the times of like runs differ by half; for "
        "reliable times see [performance](../../performance.md).\n\n" + table(header, rows)
    )


def step_seconds(record: Record) -> float:
    """Median seconds of a training step, evaluations left out."""
    columns = [record.train.get(f"time/{phase}", []) for phase in ("generate", "judge", "update", "publish")]
    totals = sorted(sum(row) for row in zip(*columns, strict=False) if all(map(is_known, row)))
    return totals[len(totals) // 2] if totals else math.nan


def _picture(pairs: Pairs, axis: str, x_label: str) -> Picture:
    panels = []
    for dataset in DATASETS:
        for k in (1, 4):
            curves = []
            for algorithm in ("sdpo", "grpo"):
                lines = []
                for pair in pairs.values():
                    passes = Passes.of(pair[algorithm], dataset, k, axis=axis)
                    lines.append(list(zip(passes.xs.tolist(), passes.curve.tolist(), strict=True)))
                curves += [Curve("", line, COLOURS[algorithm], thin=True) for line in lines]
                label = f"{name(algorithm)}, mean of {len(lines)} worlds" if len(lines) > 1 else name(algorithm)
                curves.append(Curve(label, mean_curve(lines), COLOURS[algorithm], dashed=algorithm == "grpo"))
            panels.append(PicturePanel(f"{TITLES[dataset]} problems, pass@{k}", x_label, f"pass@{k}", curves))
    against = "generations" if axis == "generations" else "wall clock"
    caption = f"pass@k against {against}. Thin: one line per world; thick: their mean."
    if axis != "generations":
        caption += " Wall clock includes the evaluations and leaves out start-up; the machine did other work at times."
        caption += " The mean ends where the shortest run does."
    return Picture(f"comparison_{against.replace(' ', '_')}", f"pass@k against {against}", caption, panels)


def _ratio_panel(pairs: Pairs) -> PicturePanel:
    bars = []
    for world, pair in pairs.items():
        ratio = world_ratio(pair, AT)
        if ratio.value != UNKNOWN:
            bars.append(Bar(f"world {world}", ratio.value.low, COLOURS["sdpo"], ratio.low, ratio.high))
    return PicturePanel("generations to .5, GRPO / SDPO", "", "ratio", bars=bars, y_limits=(0.0, None), line=1.0)


def title_of(evidence: Evidence, part: str) -> str:
    return evidence.studies.parts[part].title


def records_of(pairs: Pairs) -> list[Record]:
    return [record for pair in pairs.values() for record in pair.values()]
