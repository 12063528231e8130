"""Responses drawn token by token, coloured by what the teacher thinks of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sdpo.report.drawing import DPI, FONTS
from studies.evidence.pictures import png

_LINE, _CHARACTER = 0.24, 0.083  # inches
_STRONGEST = 4.0  # nats at which the colour is full


@dataclass(frozen=True)
class TokenPicture:
    """`examples`: problem, statement, told, and lists tokens, gap (log π − log q) and wrong, of one length."""

    name: str
    title: str
    caption: str
    examples: list[dict[str, Any]]


def draw_tokens(picture: TokenPicture, footer: str) -> bytes:
    """The picture as a PNG."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = sum(len(_lines(example)) + 3 for example in picture.examples) + 1
    width, height = 7.5, rows * _LINE
    colours = matplotlib.colormaps["coolwarm"]
    with matplotlib.rc_context(FONTS):
        canvas = Figure(figsize=(width, height), dpi=DPI)
        FigureCanvasAgg(canvas)
        axis = canvas.add_axes((0, 0, 1, 1))
        axis.set(xlim=(0, width), ylim=(height, 0))
        axis.axis("off")
        style = {"fontsize": 9, "va": "center", "parse_math": False}
        y = _LINE
        for example in picture.examples:
            title = f"{example['statement'].strip().splitlines()[0]}   (told: {example['told']})"
            axis.text(0.15, y, title, fontweight="bold", **style)
            y += 1.2 * _LINE
            for line in _lines(example):
                x = 0.3
                for text, gap, wrong in line:
                    end = x + _CHARACTER * len(text)
                    shade = colours(0.5 + 0.5 * max(-1.0, min(1.0, gap / _STRONGEST)))
                    axis.fill_between(
                        [x, end], y - 0.42 * _LINE, y + 0.42 * _LINE, color=(*shade[:3], 0.55), linewidth=0
                    )
                    axis.text(x, y, text, family="monospace", **style)
                    if wrong:
                        axis.plot([x, end], [y + 0.4 * _LINE] * 2, color="black", linewidth=1.3)
                    x = end
                y += _LINE
            y += 1.3 * _LINE
        scale = canvas.colorbar(
            matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(-_STRONGEST, _STRONGEST), colours),
            cax=canvas.add_axes((0.88, 0.55, 0.025, 0.35)),
            alpha=0.55,
        )
        scale.set_label("log π − log q, nats", fontsize=8)
        axis.text(0.15, height - 0.6 * _LINE, footer, fontsize=6.5, color="#555555", va="center", parse_math=False)
        return png(canvas, picture.title, footer)


def _lines(example: dict[str, Any]) -> list[list[tuple[str, float, int]]]:
    """Tokens line by line; a token that holds line breaks is spread over its lines, with ⏎ for each break."""
    lines: list[list[tuple[str, float, int]]] = [[]]
    for token, gap, wrong in zip(example["tokens"], example["gap"], example["wrong"], strict=True):
        pieces = token.split("\n")
        for i, piece in enumerate(pieces):
            if i > 0:
                lines.append([])
            shown = piece + ("⏎" if i < len(pieces) - 1 else "")
            if shown:
                lines[-1].append((shown, gap, wrong))
    return [line for line in lines if line]
