"""Whether the rollout engines hold the learner's policy: their log-probs of the same tokens."""

from __future__ import annotations

import numpy as np

from sdpo.errors import UserError
from sdpo.learner.group import Learner
from sdpo.rollout.pool import EnginePool

_TOKENS = 32

# Largest difference in fp32, and mean difference in bf16, in nats.  Engine and learner sum in other orders: in fp32
# that makes some 1e-5.  In bf16 a logit near 16 rounds by .03 to .06, hidden states through many layers by more, and a
# router that sits between two experts may choose the other one; .02 to .1 on average are usual.  Weights that did not
# arrive, or a part that one side leaves out, make whole nats.
_TOLERANCES = {"float32": 1e-3, "bfloat16": 0.25}


async def check_engines(learner: Learner, pool: EnginePool) -> None:
    """After a publication: every engine's log-probs of random tokens are the learner's, up to rounding.

    Raises UserError, with the difference and what is allowed.
    """
    kind, prompt, response, ours = await learner.probe(min(_TOKENS, pool.config.max_model_len - 1))
    for engine in range(len(pool.parts)):
        gap = np.abs(await pool.score(prompt, response, engine) - ours)
        check_gap(kind, pool.config.dtype, engine, gap)


def check_gap(kind: str, dtype: str, engine: int, gap: np.ndarray) -> None:
    """UserError if an engine's log-probs are off by more than rounding; gap: absolute differences, [N], nats."""
    exact = dtype == "float32"
    difference, tolerance = float(gap.max() if exact else gap.mean()), _TOLERANCES[dtype]
    if not difference <= tolerance:  # NaN is none of the allowed ones
        raise UserError(
            f"Rollout engine {engine} does not compute what the learner does with the same weights of {kind}: "
            f"log-probs of the same tokens differ {'by up to' if exact else 'on average by'} {difference:.2g} nats, "
            f"where {tolerance:.2g} is allowed. vLLM's implementation of this model leaves something out, or "
            "does not take new weights. Use another architecture (Qwen, Llama, OLMo, Mistral, …)."
        )
