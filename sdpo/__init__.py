"""sdpo: post-training of language models by self-distillation, beside a GRPO baseline."""

__version__ = "0.2.0"
