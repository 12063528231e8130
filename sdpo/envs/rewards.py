"""What a reward function of the user's own may return, made JSON in the worker that called it.

Imports little, as every worker is a fork of what is imported here.
"""

from __future__ import annotations

import math
import numbers
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

from sdpo.envs.workers.wire import Nonsense
from sdpo.types import Outcome, Task

MAX_FEEDBACK = 4000  # characters
MAX_LABEL = 40
NONSENSE = "reward nonsense"
MAX_REWARD = 1e9  # beyond, squares of single-precision numbers come near their end


def reward_of(function: Callable[..., Any], task: Task, response: str) -> Any:
    """What the function returns, as JSON; a coroutine where the function is async.  Raises Nonsense."""
    value = function(task, response)
    return _later(value) if hasattr(value, "__await__") else as_json(value)


async def _later(value: Any) -> dict[str, Any]:
    return as_json(await value)


def as_json(value: Any) -> dict[str, Any]:
    """A number, (number, feedback) or Outcome, checked.  `solved` is None where the threshold decides."""
    if isinstance(value, Outcome):
        reward = None if value.reward is None else _number(value.reward)
        label = "".join(filter(str.isprintable, str(value.label)))[:MAX_LABEL]
        made = {"solved": bool(value.solved), "label": label, "details": _clean(dict(value.details))}
        return {"reward": reward, "feedback": _words(value.feedback), **made}
    if isinstance(value, tuple | list):
        if len(value) != 2:
            raise Nonsense(f"it returned {len(value)} values; expected are a number, or a number and its feedback")
        reward, feedback = value
    else:
        reward, feedback = value, None
    return {"reward": _number(reward), "feedback": _words(feedback), "solved": None, "label": "", "details": {}}


def sound(outcome: Outcome) -> Outcome:
    """What an environment said, without a reward where that is no number to learn from: NaN, infinite, beyond ±1e9."""
    if outcome.reward is None:
        return outcome
    try:
        _number(outcome.reward)
    except Nonsense as error:
        return Outcome(None, label=NONSENSE, details={"message": f"{NONSENSE}: {error}"})
    return outcome


def _number(value: Any) -> float:
    if hasattr(value, "item") and not isinstance(value, numbers.Number):  # a 0-dimensional array or tensor
        try:
            value = value.item()
        except Exception as error:
            raise Nonsense(f"its reward is no single number ({error})") from None
    if not isinstance(value, numbers.Real):
        raise Nonsense(f"its reward is a {type(value).__name__} ({reprlib.repr(value)}), not a number")
    try:
        number = float(value)
    except OverflowError:
        raise Nonsense("its reward is too large for a number") from None
    if not math.isfinite(number):
        raise Nonsense(f"its reward is {number}")
    if abs(number) > MAX_REWARD:
        raise Nonsense(f"its reward is {number:g}; at most {MAX_REWARD:g} is accepted, above and below zero")
    return number


def _words(value: Any) -> str | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, str):
        raise Nonsense(f"its feedback is a {type(value).__name__}, not a text")
    return _clean(value if len(value) <= MAX_FEEDBACK else f"{value[:MAX_FEEDBACK]} …")


def _clean(value: Any) -> Any:
    """Texts without half characters (lone surrogates), which neither tokenizers nor files take."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {_clean(key): _clean(item) for key, item in value.items()}
    return [_clean(item) for item in value] if isinstance(value, list | tuple) else value
