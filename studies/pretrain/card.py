"""The policy's card: what it is, what it was measured to do, and what it cannot do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from safetensors import safe_open

from studies.pretrain.skills import CONDITIONS, Judged, rates

SKILLS_FILE = "skills.json"
MEASURE_COMMAND = "python -m studies pretrain measure=policies/minicode"

_TEXT = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---

# minicode policy

A language model of {parameters:,} parameters that writes short Python programs for the problems of minicode. It is made
for studying self-distillation on a laptop: it has the one skill on which that rests, to use feedback and solutions that
stand in its context, and knows very little else.

* Architecture: Qwen3 ({layers} layers, hidden size {hidden}, {heads} heads, feed-forward {ff}, tied embeddings,
  vocabulary of {vocabulary} byte-level BPE tokens and phrases, up to {positions:,} positions). Weights in fp32,
  {megabytes:.1f} MB.
* Data: {examples:,} generated examples ({steps:,} steps of {batch}). In each one the nonsense words mean something
  else, so meanings cannot be memorised: they are guessed, read from feedback on a failed attempt, or copied from a
  solution.
* Made by `{command}` at commit `{commit}`, seed {seed}.
* Prompts: the chat template, and the template `compact` of `sdpo.prompts.templates`. Answers are a fenced code block.

## Measured skills

Sampled at temperature 1, judged by the sandbox on tests that gave no feedback, on worlds of seeds {seeds}, whose words
are never used in pre-training; {samples} responses per problem. `{measure}` repeats this table.

* *first try*: the question alone.
* *with feedback*: another try at problems whose first try failed, with the compact feedback on that try.
* *with solution*: with another attempt that passed.
* *known words*: problems of English words only, first try.

{tables}

The second family, `minicode-texts`, in which words stand for operations on a text:

{texts}

## What it cannot do

* Anything but these problems: no English beyond the statements' sentences, no Python beyond the programs' few lines.
* Find the name of a library function from anything but Python's "Did you mean".
* Learn two things from one failed attempt when the feedback shows only one of them: it sees the feedback, not the
  attempt.
* Chain of thought, several turns, system messages: none were in its data.
"""


def skill_tables(outcomes: Sequence[Judged]) -> list[Table]:
    """Pass rates by kind, by difficulty and by world, as console tables."""
    return [console_table(by, rates(outcomes, by), CONDITIONS) for by in ("kind", "difficulty", "seed")]


def console_table(by: str, rates: dict[str, dict[str, float]], conditions: Sequence[str]) -> Table:
    table = Table(by, *conditions)
    for name, row in rates.items():
        table.add_row(name, *_cells(row, conditions))
    return table


def markdown_table(by: str, rates: dict[str, dict[str, float]], conditions: Sequence[str]) -> str:
    lines = [f"| {by} | {' | '.join(conditions)} |", "|---" * (len(conditions) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(_cells(row, conditions))} |" for name, row in rates.items()]
    return "\n".join(lines)


def _cells(row: dict[str, float], conditions: Sequence[str]) -> list[str]:
    return [f"{row[c]:.3f}" if c in row else "–" for c in conditions]


def write_card(folder: Path, outcomes: Sequence[Judged], texts: Sequence[Judged]) -> None:
    """Write README.md and skills.json (the same pass rates, for programs) into a policy folder.

    `outcomes` were measured on minicode, `texts` on its second family.
    """
    seeds = sorted({o.seed for o in outcomes})
    first = [o for o in outcomes if o.condition == CONDITIONS[0] and o.seed == seeds[0]]
    samples = len(first) // len({o.problem for o in first})
    skills = {"seeds": seeds, "samples": samples, "command": MEASURE_COMMAND}
    skills |= {by: rates(outcomes, by) for by in ("kind", "difficulty", "seed")}
    skills["texts"] = rates(texts, "kind")
    (folder / SKILLS_FILE).write_text(json.dumps(skills, indent=2) + "\n")
    text = _TEXT.format(
        **facts(folder),
        seeds=", ".join(map(str, seeds)),
        samples=samples,
        measure=MEASURE_COMMAND,
        tables="\n\n".join(
            markdown_table("world" if by == "seed" else by, skills[by], CONDITIONS)
            for by in ("kind", "difficulty", "seed")
        ),
        texts=markdown_table("kind", skills["texts"], CONDITIONS),
    )
    (folder / "README.md").write_text(text)


def facts(folder: Path) -> dict[str, object]:
    """What a card says of a model folder and of how it was made: the fields of the cards' texts."""
    config = json.loads((folder / "config.json").read_text())
    record = json.loads((folder / "pretraining.json").read_text())
    settings, weights = record["settings"], folder / "model.safetensors"
    return {
        "parameters": _parameters(weights),
        "layers": config["num_hidden_layers"],
        "hidden": config["hidden_size"],
        "heads": config["num_attention_heads"],
        "ff": config["intermediate_size"],
        "vocabulary": config["vocab_size"],
        "positions": config["max_position_embeddings"],
        "megabytes": weights.stat().st_size / 1e6,
        "examples": record["step"] * settings["batch"],
        "steps": record["step"],
        "batch": settings["batch"],
        "command": record["command"],
        "commit": record["commit"],
        "seed": settings["seed"],
    }


def _parameters(weights: Path) -> int:
    """Number of stored values; the tied output layer is stored once."""
    total = 0
    with safe_open(weights, "np") as file:
        for name in file.keys():
            count = 1
            for size in file.get_slice(name).get_shape():
                count *= size
            total += count
    return total
