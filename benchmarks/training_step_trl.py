"""The training part of a step: TRL's GRPO and SDPO trainers beside this project's learner, on the same responses.

The bundled policy's responses to bundled problems are sampled once.  TRL's trainers are subclassed at one method each,
the one that would generate and score: it hands out these responses, padded as TRL pads them, with the same advantages
and the same teacher prompts.  Everything after it is TRL's own: loss, backward pass, clipping, optimiser, moving
average, callbacks.  After each step of TRL's trainer this project's learner makes one (DeepSpeed, one rank), so that
the pairs are interleaved.  Both in float32 on the CPU, AdamW, without gradient checkpointing; the divergence is
Jensen-Shannon on the full vocabulary and the teacher a moving average, in both.  TRL is also given micro-batches, in
case it is faster with them.
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
import tempfile
import time
import warnings

from benchmarks.common import Record, extra_packages, parser, progress, timed
from benchmarks.learner import dealt, start_worker, step
from benchmarks.responses import LONGEST, long_tailed, sampled_groups, samples_of
from sdpo.config.files import find_recipe, load_recipe
from sdpo.config.paths import locate
from sdpo.config.schema import Recipe
from sdpo.types import Sample

ALGORITHMS = ("grpo", "sdpo")
WARM_UP = 2  # steps that are not counted
TAIL = 480  # tokens of the longest response of the batch with a long tail
WANTED = {"grpo": 1.45, "sdpo": 1.5, "grpo, long tail": 2.0, "sdpo, long tail": 2.0}  # this project ÷ TRL


def main() -> int:
    options = parser(__doc__, repeats=9)
    options.add_argument("--threads", type=int, default=2)
    args = options.parse_args()
    record = Record("training_step_trl", args)
    extra_packages()
    if importlib.util.find_spec("trl") is None:
        sys.exit("error: TRL is missing; `make bench` installs it (requirements/bench.txt)")
    warnings.filterwarnings("ignore", message="TRL currently supports vLLM")  # no vLLM is started here
    questions, responses = (2, 2) if args.small else (16, 4)
    recipes = {
        name: load_recipe(find_recipe("livecodebench", name), "cpu", (f"learner.cpu_threads={args.threads}",))
        for name in ALGORITHMS
    }
    groups = sampled_groups(recipes["sdpo"], questions, responses)
    rows, samples = [], {}
    batches = {name: (recipe, samples_of(recipe, groups)) for name, recipe in recipes.items()}
    batches |= {f"{name}, long tail": (recipe, long_tailed(batch, TAIL)) for name, (recipe, batch) in batches.items()}
    for name, (recipe, batch) in batches.items():
        tokens = sum(len(s.response_ids) for s in batch)
        pairs = {micro: _pairs(recipe, batch, micro, args.repeats) for micro in _micro_batches(len(batch))}
        best = min(pairs, key=lambda micro: statistics.median(pair["trl"]["seconds"] for pair in pairs[micro]))
        ratio, processor = (
            statistics.median(p["trl"][key] / p["sdpo"][key] for p in pairs[best])
            for key in ("seconds", "processor_seconds")
        )
        rates = {side: tokens / statistics.median(p[side]["seconds"] for p in pairs[best]) for side in ("trl", "sdpo")}
        label = name.replace(recipe.algorithm.name, recipe.algorithm.name.upper())
        rows.append([label, f"{rates['trl']:,.0f}", f"{rates['sdpo']:,.0f}", f"{ratio:.2f}", f"{processor:.2f}"])
        samples[name] = {"response_tokens": tokens, "pairs_by_micro_batch": pairs, "best_micro_batch": best}
        samples[name] |= {"tokens_per_second": rates, "speedup": ratio, "speedup_processor": processor}
    sizes = ", ".join(f"{name}: {found['best_micro_batch']}" for name, found in samples.items())
    padded = questions * responses * TAIL
    record.finish(
        ["algorithm", "TRL, response tokens/s", "this project", "this project ÷ TRL", "by processor time"],
        rows,
        [
            f"{questions * responses} responses of {samples['sdpo']['response_tokens']} tokens per step, median of "
            f"{args.repeats} pairs, {args.threads} threads. TRL's faster micro-batch, in responses: {sizes}.",
            f"Long tail: each response repeated or cut to a log-normal length, {TAIL // LONGEST} tokens at the median "
            f"and {TAIL} at most, {samples['sdpo, long tail']['response_tokens']:,} in all; padded to one length "
            f"{padded:,}.",
            f"Wanted: {', '.join(f'{name} {least:g}' for name, least in WANTED.items())}.",
        ],
        samples=samples,
        bounds_met={name: samples[name]["speedup"] >= least for name, least in WANTED.items()},
    )
    return 0


def _micro_batches(count: int) -> tuple[int, int]:
    return count, max(1, count // 4)


def _pairs(recipe: Recipe, batch: list[Sample], micro_batch: int, repeats: int) -> list[dict[str, dict[str, float]]]:
    """Seconds of TRL's step and of the step that this project's learner makes after it, `repeats` times."""
    from transformers import TrainerCallback

    pairs: list[dict[str, dict[str, float]]] = []
    with tempfile.TemporaryDirectory() as folder:
        # Before DeepSpeed makes a process group, which Accelerate would take for its own.
        trainer = _trl_trainer(recipe, batch, micro_batch, repeats + WARM_UP, folder)
        worker, (ours,) = start_worker(recipe), dealt(recipe, batch)

        class Pair(TrainerCallback):
            """Added last, so that its `on_step_end` comes after TRL's own callbacks (the moving average)."""

            def on_step_begin(self, *_, **__):
                self.wall, self.processor = time.perf_counter(), time.process_time()

            def on_step_end(self, *_, **__):
                wall, processor = time.perf_counter() - self.wall, time.process_time() - self.processor
                progress(f"{recipe.algorithm.name}, micro-batches of {micro_batch}: pair {len(pairs) + 1}")
                trl = {"seconds": wall, "processor_seconds": processor}
                pairs.append({"trl": trl, "sdpo": timed(lambda: step(worker, ours))})

        trainer.add_callback(Pair())
        trainer.train()
    progress("")
    return pairs[WARM_UP:]


def _trl_trainer(recipe: Recipe, batch: list[Sample], micro_batch: int, steps: int, folder: str):
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer
    from trl.experimental.sdpo import SDPOConfig, SDPOTrainer

    torch.set_num_threads(recipe.learner.cpu_threads)
    tokenizer = AutoTokenizer.from_pretrained(locate(recipe.model.path))
    fixed = _trl_batch(batch, tokenizer.pad_token_id)
    accumulation = len(batch) // micro_batch
    common = {
        "output_dir": folder,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "max_steps": steps,
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": accumulation,
        "steps_per_generation": accumulation,
        "num_generations": recipe.rollout.responses if len(batch) % recipe.rollout.responses == 0 else 2,
        "max_completion_length": recipe.rollout.max_response_tokens,
        "temperature": recipe.rollout.temperature,
        "learning_rate": recipe.learner.lr,
        "lr_scheduler_type": "constant",
        "adam_beta1": recipe.learner.betas[0],
        "adam_beta2": recipe.learner.betas[1],
        "weight_decay": recipe.learner.weight_decay,
        "max_grad_norm": recipe.learner.clip_grad_norm,
        "beta": 0.0,
    }
    # What `train` iterates over; its text is never used, since the fixed responses take its place.
    dataset = Dataset.from_dict({"prompt": ["x"] * len(batch) * 2, "privileged_context": [""] * len(batch) * 2})
    given = {
        "model": locate(recipe.model.path),
        "reward_funcs": lambda completions, **_: [0.0] * len(completions),
        "train_dataset": dataset,
        "processing_class": tokenizer,
    }
    common["model_init_kwargs"] = {"dtype": "float32", "attn_implementation": recipe.model.attention}
    if recipe.distillation is None:

        class FixedGRPO(GRPOTrainer):
            def _generate_and_score_completions(self, inputs):
                return dict(fixed)

        return FixedGRPO(args=GRPOConfig(**common), **given)

    class FixedSDPO(SDPOTrainer):
        def _prepare_training_batch(self, inputs):
            return dict(fixed)

    config = SDPOConfig(
        **common,
        distillation_mode="full_logits",
        distillation_alpha=recipe.distillation.alpha,
        distillation_weight=1.0,
        teacher_model_kind="ema",
        teacher_update_rate=recipe.teacher.rate,
    )
    return FixedSDPO(args=config, **given)


def _trl_batch(batch: list[Sample], pad_id: int) -> dict:
    """Prompts padded on the left and responses on the right, as both trainers do it."""
    import torch

    def padded(sequences, left: bool):
        width = max(len(s) for s in sequences)
        ids = torch.full((len(sequences), width), pad_id)
        mask = torch.zeros_like(ids)
        for row, sequence in enumerate(sequences):
            where = slice(width - len(sequence), width) if left else slice(0, len(sequence))
            ids[row, where], mask[row, where] = torch.tensor(sequence), 1
        return ids, mask

    prompts, prompt_mask = padded([s.prompt_ids for s in batch], left=True)
    responses, response_mask = padded([s.response_ids for s in batch], left=False)
    made = {
        "prompt_ids": prompts,
        "prompt_mask": prompt_mask,
        "completion_ids": responses,
        "completion_mask": response_mask,
        "advantages": torch.tensor([0.0 if s.advantages is None else float(s.advantages[0]) for s in batch]),
    }
    taught = [s.teacher is not None for s in batch]
    if any(taught):
        teachers = [s.prompt_ids if s.teacher is None else s.teacher.prompt_ids for s in batch]
        ids, mask = padded(teachers, left=True)
        made["teacher_input_ids"] = torch.cat([ids, responses], 1)
        made["teacher_attention_mask"] = torch.cat([mask, response_mask], 1)
        made["self_distillation_mask"] = torch.tensor(taught).float()
    else:
        made["num_items_in_batch"] = response_mask.sum()
    return made


if __name__ == "__main__":
    sys.exit(main())
