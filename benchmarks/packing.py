"""How the sequences of a learner step are laid out: padded, packed by transformers, packed as the learner does it.

The same responses of the bundled policy through its layers, without the output matrix: the student's prompts forward
and backward, the teacher's longer ones forward.  All layouts give the same hidden states (the largest difference is in
the record).
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.common import Record, interleave, median_ratio, medians, parser, timed

PADDED, RESTARTING, ALONE, SHARED = (
    "padded, with a mask",
    "packed by transformers (position_ids that restart)",
    "packed here, nothing shared",
    "packed here, prefixes shared",
)
Sequences = tuple[list[np.ndarray], list[np.ndarray]]  # prompts, responses
Layout = tuple[int, Callable[[], torch.Tensor]]  # tokens, hidden states that predict response tokens [N, H]


def main() -> int:
    args = parser(__doc__, repeats=5).parse_args()
    record = Record("packing", args)
    torch.set_num_threads(1)
    student, teacher = _sequences(*(2, 2) if args.small else (16, 4))
    layouts = {"student": _layouts(*student), "teacher": _layouts(*teacher)}
    samples, difference = {}, 0.0
    for who, made in layouts.items():
        with torch.no_grad():
            expected = made[PADDED][1]()
            difference = float(
                np.max([difference, *(float((run() - expected).abs().max()) for _, run in made.values())])
            )
        work = _forward_and_backward if who == "student" else _forward
        sides = {name: lambda run=run, work=work: timed(lambda: work(run)) for name, (_, run) in made.items()}
        interleave(sides, 1)  # the first round allocates
        samples[who] = interleave(sides, args.repeats)
    rows = []
    for name in layouts["student"]:
        row = [name]
        for who, made in layouts.items():
            ratio = median_ratio(samples[who], name, PADDED)
            row += [f"{made[name][0]:,}", f"{1000 * medians(samples[who])[name]['seconds']:.0f}", f"{ratio:.2f}"]
        rows.append(row)
    columns = [f"{who}{what}" for who in ("student: ", "teacher: ") for what in ("tokens", "ms", "÷ padded")]
    lengths = [np.mean([len(ids) for ids in part]) for part in (*student, teacher[0])]
    record.finish(
        ["layout", *columns],
        rows,
        [
            f"{len(student[0])} responses; mean tokens: prompt {lengths[0]:.0f}, response {lengths[1]:.0f}, teacher's "
            f"prompt {lengths[2]:.0f}. Medians of {args.repeats}; one thread.",
        ],
        samples=samples,
        largest_difference=difference,
    )
    return 0


def _sequences(questions: int, responses: int) -> tuple[Sequences, Sequences]:
    """What SDPO's recipe makes of one generation batch: the student's, and the teacher's where there is a context."""
    from benchmarks.responses import sampled_groups, samples_of
    from sdpo.config.files import find_recipe, load_recipe

    recipe = load_recipe(find_recipe("livecodebench", "sdpo"), "cpu", ())
    samples = samples_of(recipe, sampled_groups(recipe, questions, responses))
    taught = [s for s in samples if s.teacher is not None]
    student = [s.prompt_ids for s in samples], [s.response_ids for s in samples]
    teacher = [s.teacher.prompt_ids for s in taught], [s.response_ids for s in taught]
    return tuple(tuple([np.array(ids) for ids in part] for part in side) for side in (student, teacher))


def _layouts(prompts: list[np.ndarray], responses: list[np.ndarray]) -> dict[str, Layout]:
    from transformers import AutoModel

    from sdpo.config.paths import locate
    from sdpo.config.sections import ModelSettings
    from sdpo.learner.model import load_model
    from sdpo.learner.packing import Pack, pack

    path, device = "policies/minicode", torch.device("cpu")
    theirs = AutoModel.from_pretrained(locate(path), dtype=torch.float32)
    ours = load_model(ModelSettings(path=path, dtype="float32"), torch.float32)
    sequences = [torch.from_numpy(np.concatenate([p, r[:-1]])) for p, r in zip(prompts, responses, strict=True)]
    ids = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(s) for s in sequences], batch_first=True)
    wanted = [torch.arange(len(p) - 1, len(s)) for p, s in zip(prompts, sequences, strict=True)]
    starts = np.cumsum([0, *map(len, sequences)])
    row = torch.cat(sequences)[None]
    positions = torch.cat([torch.arange(len(s)) for s in sequences])[None]
    places = torch.cat([w + start for w, start in zip(wanted, starts, strict=False)])
    one_by_one = [pack([p], [r], device) for p, r in zip(prompts, responses, strict=True)]
    alone = Pack(row, positions, places, tuple(g for each in one_by_one for g in each.groups))
    shared = pack(prompts, responses, device)

    def padded() -> torch.Tensor:
        states = theirs(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        return torch.cat([states[i, w] for i, w in enumerate(wanted)])

    def restarting() -> torch.Tensor:
        return theirs(input_ids=row, position_ids=positions, use_cache=False).last_hidden_state[0][places]

    return {
        PADDED: (ids.numel(), padded),
        RESTARTING: (row.numel(), restarting),
        ALONE: (alone.input_ids.numel(), lambda: ours.hidden(alone)),
        SHARED: (shared.input_ids.numel(), lambda: ours.hidden(shared)),
    }


def _forward_and_backward(run: Callable[[], torch.Tensor]) -> None:
    run().square().sum().backward()


@torch.no_grad()
def _forward(run: Callable[[], torch.Tensor]) -> None:
    run()


if __name__ == "__main__":
    sys.exit(main())
