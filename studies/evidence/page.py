"""The page: sections in order of importance, their figures, and how to do it again.  Made from committed data alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sdpo.tracking.disk import atomic_write
from sdpo.tracking.format import duration
from studies.evidence.evidence import DATASETS, TITLES, Evidence
from studies.evidence.layout import Layout
from studies.evidence.markdown import Origin, Section, code, number
from studies.evidence.pictures import Picture, draw
from studies.evidence.record import Record
from studies.evidence.sections import (
    adapters,
    claims,
    comparison,
    forgetting,
    guards,
    modes,
    relatives,
    repeats,
    single_world,
    teacher,
    tools,
    tuning,
    turns,
)
from studies.evidence.sections.common import listed
from studies.evidence.token_picture import TokenPicture, draw_tokens
from studies.markdown_table import table

MADE_BY = "sdpo results page"
SECTIONS: tuple[Callable[[Evidence], Section], ...] = (
    comparison.section,
    tuning.section,
    single_world.combined,
    single_world.ablations,
    forgetting.section,
    comparison.fresh,
    tools.section,
    tools.tuning,
    turns.section,
    turns.hints,
    relatives.section,
    relatives.variants,
    relatives.other_problem,
    single_world.opsd_again,
    relatives.sequence,
    relatives.sequence_tuning,
    single_world.noise,
    single_world.groups,
    single_world.limits,
    single_world.longer,
    single_world.sizes,
    adapters.section,
    teacher.section,
    guards.section,
    repeats.section,
    modes.section,
    claims.section,
)


def compose(evidence: Evidence) -> tuple[str, list[Section]]:
    """The page's text, and the sections with the figures that it refers to."""
    sections = [make(evidence) for make in SECTIONS]
    parts = [_opening(evidence), *_in_short(evidence)]
    for section in sections:
        parts += [f"## {section.title}\n\n{section.text}", *(_figure(picture) for picture in section.figures)]
    return "\n\n".join([*parts, _again(evidence), _runs(evidence)]) + "\n", sections


def write_page(evidence: Evidence, layout: Layout) -> None:
    """Write README.md and its figures into the data folder; figures of an earlier page are replaced."""
    text, sections = compose(evidence)
    layout.data.mkdir(parents=True, exist_ok=True)
    for old in layout.data.glob("*.png"):
        old.unlink()
    for section in sections:
        for picture in section.figures:
            atomic_write(layout.data / f"{picture.name}.png", png_of(picture, section))
    atomic_write(layout.page, text.encode())


def _opening(evidence: Evidence) -> str:
    records = evidence.index.records
    failed = sum(bool(record.failures) for record in records)
    made = "No run is recorded yet."
    if records:
        made = (
            f"{len(records)} runs ({failed} of them failed), {duration(sum(r.elapsed_s for r in records))} in all, at "
            f"{_commits(records)}, on {listed(dict.fromkeys(r.hardware for r in records))}."
        )
    return (
        "# Does hindsight beat a bare reward, and when?\n\n"
        "SDPO and GRPO on minicode, with the bundled policy of 1 M parameters, on a CPU. A *world* of minicode gives "
        "made-up words secret meanings: operations on lists (in a second family of problems, on texts). Its problems "
        "ask for programs that do what a sentence of such words says, so the policy must learn the meanings. It was "
        "pre-trained on other worlds for one skill: to use what its prompt tells it, feedback on a failed attempt or a "
        "correct solution. Feedback shows what was expected. This favours SDPO, whose teacher is the policy with such "
        "a prompt. A *sibling* is another response of the same group; its success is the solution that is shown. "
        "*Known words* are problems that consist of plain English words. The runs are "
        "declared in `studies/evidence/studies.yaml`, `make results` makes them, and every number and figure below is "
        f"recomputed by `python -m studies results page` from the records in this folder. {made}\n\n"
        f"{_measured(evidence)}Intervals are 95 % bootstrap intervals over problems; > means not within the budget. "
        "They do not include the variation between runs with different random numbers: see "
        "[the same world again](#the-same-world-again). If all problems agree, the interval has no width; with "
        "64 problems the rate may still be wrong by .05."
    )


def _in_short(evidence: Evidence) -> list[str]:
    """The answers that the sections below come to, as far as there are data."""
    lines = []
    if pairs := evidence.complete_pairs("comparison"):
        lines.append(f"To training pass@1 .5 GRPO needs {comparison.times(pairs)} times the generations of SDPO.")
    if pairs := evidence.complete_pairs("worlds"):
        lines.append(f"On five worlds that nobody tuned on: {comparison.times(pairs)} times.")
    lines += [
        text
        for text in (
            tools.in_short(evidence),
            single_world.same_groups(evidence),
            forgetting.in_short(evidence),
            single_world.as_good(evidence),
        )
        if text
    ]
    return ["\n".join(f"* {line}" for line in lines)] if lines else []


def _measured(evidence: Evidence) -> str:
    """How pass@1 is measured, read off the comparison's first run."""
    records = [record for _, record in evidence.finished("comparison") or evidence.finished("tuning")]
    if not records or len(records[0].eval["step"]) < 2:
        return ""
    record = records[0]
    problems = listed(f"{len(counts.ids)} {TITLES[d]}" for d in DATASETS if (counts := record.problems.get(d)))
    step, generations = record.eval["step"], record.eval["generations"]
    per_step = (generations[1] - generations[0]) // (step[1] - step[0])
    return (
        f"Unless something else is said: pass@1 from {record.problems['train'].n} samples of each of {problems} "
        f"problems every {step[1] - step[0]} steps of {per_step} samples; "
        f"{generations[-1]:,} samples in all. "
    )


def _commits(records: list[Record]) -> str:
    commits = list(dict.fromkeys(commit for record in records for commit in record.commits))
    changed = sum(bool(record.changes) for record in records)
    text = f"commit {commits[0]}" if len(commits) == 1 else f"commits {listed(commits)}"
    return text + (f" ({changed} runs with changes to tracked files, named in their records)" if changed else "")


def png_of(picture: Picture | TokenPicture, section: Section) -> bytes:
    text = _footer(section.runs)
    return draw_tokens(picture, text) if isinstance(picture, TokenPicture) else draw(picture, text)


def _figure(picture: Picture | TokenPicture) -> str:
    return f"![{picture.title}]({picture.name}.png)\n\n*{picture.caption}*"


def _footer(runs: Sequence[Record | Origin]) -> str:
    """What stands below a figure."""
    return (
        f"Hardware: {listed(dict.fromkeys(r.hardware for r in runs))}. Commit: "
        f"{listed(dict.fromkeys(c for r in runs for c in r.commits))}. Data: docs/results/evidence. Made by: {MADE_BY}."
    )


def _again(evidence: Evidence) -> str:
    example = next((r for r in evidence.index.records if r.run.startswith("comparison/")), None)
    example = example or next(iter(evidence.index.records), None)
    command = example.command if example else "sdpo train livecodebench --profile cpu name=again seed=1"
    return (
        "## To run one of these again\n\n"
        "A record's `command` is what made it, for example\n\n"
        f"{code(command)}\n\n"
        "A finished run is left alone, so give another `name=`, or `--fresh`. The run's numbers stand in its folder "
        "(`metrics.jsonl`, `report.html`). `make results PARTS=comparison/sdpo-world1` makes a single declared run and "
        f"its record, `make results` makes all that are missing, and this page.\n\n{repeats.expected(evidence)}"
    )


def _runs(evidence: Evidence) -> str:
    rows = []
    for record in evidence.index.records:
        curve = record.curve("eval/train/pass@1")
        rows.append(
            [
                f"[{record.run}](runs/{record.run}.json)",
                record.status + (f", after {len(record.earlier_failures)} failed" if record.earlier_failures else ""),
                ", ".join(run for run in record.used_by if run != record.run) or "–",
                number(curve[-1][1]) if curve else "–",
                duration(record.elapsed_s),
                ", ".join(record.commits) + (f" + {len(record.changes)} changed files" if record.changes else ""),
                record.started[:16].replace("T", " "),
            ]
        )
    header = ["run", "status", "also answers", "training pass@1", "took", "commit", "started (UTC)"]
    body = table(header, rows) if rows else "None yet."
    failed = [f"* {r.run} failed: {reason}" for r in evidence.index.records for reason in r.failures]
    return "## All runs\n\nFailed ones included.\n\n" + "\n\n".join(filter(None, [body, "\n".join(failed)]))
