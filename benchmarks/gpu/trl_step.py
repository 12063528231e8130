"""Steps of TRL's GRPO trainer and its SDPO trainer on a batch that is given.

Each is subclassed where it would generate and score, and hands out the batch; the SDPO trainer also where it would load
its teacher, which is given, too.  The rest is TRL's own.  The optimiser is SGD with a learning rate of 0, which keeps
nothing; gradients are not clipped.
"""

from __future__ import annotations

import tempfile

import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast, TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from trl.experimental.sdpo import SDPOConfig, SDPOTrainer

from benchmarks.gpu.device import Meter


def steps(student, teacher, rows: dict[str, torch.Tensor], repeats: int) -> list[dict[str, float]]:
    """What a `Meter` reads of each step but the first, one response per micro-batch."""
    device, count = student.device, len(rows["prompt_ids"])
    read: list[dict[str, float]] = []

    class Meters(TrainerCallback):
        def on_step_begin(self, *_, **__):
            self.meter = Meter(device)

        def on_step_end(self, *_, **__):
            read.append(self.meter.read())

    with tempfile.TemporaryDirectory() as folder:
        options = {
            "output_dir": folder,
            "use_cpu": device.type == "cpu",
            "bf16": False,  # the weights are bfloat16 already
            "gradient_checkpointing": True,
            "gradient_checkpointing_kwargs": {"use_reentrant": False},
            "report_to": "none",
            "save_strategy": "no",
            "logging_strategy": "no",
            "disable_tqdm": True,
            "max_steps": 1 + repeats,
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": count,
            "steps_per_generation": count,
            "num_generations": 2 if count % 2 == 0 else count,
            "max_completion_length": rows["completion_ids"].shape[1],
            "max_grad_norm": 0.0,
            "beta": 0.0,
        }
        optimiser = torch.optim.SGD(student.parameters(), lr=0.0)
        prompts = ["x"] * count * 2  # what is iterated over, and never used
        given = {
            "model": student,
            "reward_funcs": lambda completions, **_: [0.0] * len(completions),
            "train_dataset": Dataset.from_dict({"prompt": prompts, "privileged_context": [""] * len(prompts)}),
            "processing_class": _tokenizer(),
            "optimizers": (optimiser, torch.optim.lr_scheduler.ConstantLR(optimiser, factor=1.0)),
            "callbacks": [Meters()],
        }
        (_grpo if teacher is None else _sdpo)(options, given, rows, teacher).train()
    return read[1:]


def _grpo(options: dict, given: dict, rows: dict[str, torch.Tensor], _) -> GRPOTrainer:
    class Fixed(GRPOTrainer):
        def _generate_and_score_completions(self, inputs):
            return rows | {"num_items_in_batch": rows["completion_mask"].sum()}

    return Fixed(args=GRPOConfig(**options), **given)


def _sdpo(options: dict, given: dict, rows: dict[str, torch.Tensor], teacher) -> SDPOTrainer:
    class Fixed(SDPOTrainer):
        def _prepare_training_batch(self, inputs):
            return rows | {"self_distillation_mask": torch.ones(len(inputs), device=self.accelerator.device)}

        def _setup_teacher_model(self):
            self.teacher_model = teacher

    distils = {"distillation_mode": "full_logits", "distillation_alpha": 1.0, "distillation_weight": 1.0}
    return Fixed(args=SDPOConfig(**options, **distils, teacher_model_kind="base"), **given)


def _tokenizer() -> PreTrainedTokenizerFast:
    """Of one word, since nothing is read or written."""
    words = Tokenizer(WordLevel({"<pad>": 0, "x": 1}, unk_token="x"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<pad>")
