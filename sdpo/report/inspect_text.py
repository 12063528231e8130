"""One response in a terminal: its tokens in colours, or with numbers where there are none."""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sdpo.report.responses import Response, Tokens

# From which |log q − log π| on a token gets which background, of 256 colours; dark ink can be read on all of them.
_MORE = ((2.0, 39), (1.0, 75), (0.5, 117), (0.1, 153))
_LESS = ((2.0, 208), (1.0, 214), (0.5, 222), (0.1, 230))


def print_response(response: Response, console: Console) -> None:
    """The head line, the response, the feedback; a line for each token where the terminal has no colours."""
    row, tokens = response.row, response.tokens
    advantage = "none" if response.advantage is None else f"{response.advantage:+.3f}"
    reward = "none" if row["reward"] is None else f"{row['reward']:g}"
    turn = f", turn {row['turn']}" if (row["turn"] or 1) > 1 else ""
    console.print(Text(
        f"Step {response.step}, {response.task}, sample {row['sample']}{turn}: {row['verdict'] or response.outcome}, "
        f"reward {reward}. GRPO advantage of every token: {advantage}"
    ))  # fmt: skip
    if tokens is None:
        console.print(Text("Its tokens were not recorded (tracking.tokens_mb)."))
        console.print(Text(row["response"] or ""))
    elif tokens.gains is None:
        console.print(Text("No teacher re-scored it: it has no dense credit."))
        console.print(Text("".join(tokens.texts)))
    else:
        largest = int(np.abs(tokens.gains).argmax()) if len(tokens.gains) else 0
        console.print(Text(
            f"log q − log π of the teacher q and the policy π: mean {tokens.gains.mean():+.3f}, largest "
            f"{tokens.gains[largest]:+.3f} at token {largest}"
        ))  # fmt: skip
        if console.color_system is None:
            console.print(_lines(tokens, tokens.gains))
        else:
            console.print(_legend())
            console.print(_coloured(tokens, tokens.gains))
    if row["feedback"]:
        console.print(Text(f"\nFeedback: {row['feedback']}"))


def _style(gain: float) -> str:
    steps = _MORE if gain > 0 else _LESS
    return next((f"color(16) on color({colour})" for least, colour in steps if abs(gain) >= least), "")


def _coloured(tokens: Tokens, gains: np.ndarray) -> Text:
    text = Text()
    for token, gain in zip(tokens.texts, gains, strict=True):
        # A background that ends in a line break would run to the edge.
        body = token.rstrip("\n")
        text.append(body or ("↵" if token else ""), _style(gain))
        text.append(token[len(body) :])
    return text


def _legend() -> Text:
    text = Text("wanted less ")
    for value in (*(-least for least, _ in _LESS), 0.0, *(least for least, _ in reversed(_MORE))):
        text.append(f" {value:+g} ", _style(value))
    return text.append(" more")


def _lines(tokens: Tokens, gains: np.ndarray) -> Table:
    assert tokens.teacher_log_probs is not None
    table = Table(box=None, pad_edge=False)
    for name in ("token", "log q − log π", "log π", "log q"):
        table.add_column(name, justify="left" if name == "token" else "right")
    for text, *numbers in zip(tokens.texts, gains, tokens.log_probs, tokens.teacher_log_probs, strict=True):
        values = (f"{numbers[0]:+.3f}", f"{numbers[1]:.3f}", f"{numbers[2]:.3f}")
        table.add_row(Text(repr(text)), *map(Text, values))
    return table
