"""The card of the policy of minitools."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from studies.pretrain.card import SKILLS_FILE, console_table, facts, markdown_table
from studies.pretrain.skills import rates
from studies.pretrain.tool_skills import CONDITIONS, Answered

MEASURE_COMMAND = "python -m studies pretrain measure=policies/minitools"

_TEXT = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---

# minitools policy

A language model of {parameters:,} parameters that calls the tools of minitools. It is made for studying
self-distillation on a laptop: it uses what stands in its context (the service's errors, another attempt's call, earlier
turns), and knows no world.

* Architecture: Qwen3 ({layers} layers, hidden size {hidden}, {heads} heads, feed-forward {ff}, tied embeddings,
  vocabulary of {vocabulary} byte-level BPE tokens and phrases, up to {positions:,} positions). Weights in fp32,
  {megabytes:.1f} MB.
* Data: {examples:,} generated examples ({steps:,} steps of {batch}). In each one the nonsense words mean something
  else, so meanings cannot be memorised.
* Made by `{command}` at commit `{commit}`, seed {seed}.
* Prompts: the chat template, and the template `compact` of `sdpo.prompts.templates`. Answers are one call in JSON.

## Measured skills

Sampled at temperature 1 on worlds of seeds {seeds}, whose words are never used in pre-training. `{measure}` repeats
this table.

* *first try*: the request alone. *with feedback*: another try where the first one failed, with the service's errors.
* *with solution*: with the right call. *next turn*: the conversation goes on after a failed first try.

{table}

## What it cannot do

* Anything but calls of this service: no English, no other format.
* Tell which tool a word means but from its context: the first try is a guess among those that the request lists.
"""


def tool_table(outcomes: Sequence[Answered]) -> Table:
    return console_table("difficulty", rates(outcomes, "difficulty", CONDITIONS), CONDITIONS)


def write_tool_card(folder: Path, outcomes: Sequence[Answered]) -> None:
    """Write README.md and skills.json (the same rates, for programs) into a policy folder."""
    seeds = sorted({o.seed for o in outcomes})
    skills = {"seeds": seeds, "command": MEASURE_COMMAND, "difficulty": rates(outcomes, "difficulty", CONDITIONS)}
    (folder / SKILLS_FILE).write_text(json.dumps(skills, indent=2) + "\n")
    table = markdown_table("requests", skills["difficulty"], CONDITIONS)
    text = _TEXT.format(**facts(folder), seeds=", ".join(map(str, seeds)), measure=MEASURE_COMMAND, table=table)
    (folder / "README.md").write_text(text)
