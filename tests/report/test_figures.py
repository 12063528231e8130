"""Figures on pages: SVGs that take the page's colours, one colour per outcome, nothing clipped, nothing constant."""

from __future__ import annotations

import re

import numpy as np
from matplotlib.figure import Figure as Canvas

from sandbox import Verdict
from sdpo.report import drawing, svg
from sdpo.report.figures import Figure, Line, Panel, metric_figure, share_figure
from sdpo.report.runs import load_run
from sdpo.tracking import metric_names as names
from sdpo.tracking.outcomes import OUTCOMES, colours


def _hue(css: str) -> float:
    from matplotlib.colors import rgb_to_hsv, to_rgb

    return float(rgb_to_hsv(to_rgb(css))[0])


def test_green_is_what_was_solved_and_nothing_else():
    solved = {"accepted", "right", "solved"}
    every = colours([*OUTCOMES, "an outcome of one's own", "another"])
    for label, colour in every.items():
        green = 0.25 < _hue(colour.css) < 0.5 and colour.css.upper() not in ("#999999", "#666666")
        assert green == (label in solved) == (colour.terminal == "green"), label
    assert {verdict.value for verdict in Verdict} - {Verdict.SANDBOX_ERROR.value} <= OUTCOMES.keys()


def test_outcomes_keep_colour_and_order_whatever_else_is_there():
    assert list(colours(["time_limit", "zebra", "accepted"])) == ["accepted", "time limit", "zebra"]
    assert colours(["accepted"])["accepted"] == colours(["zebra", "accepted"])["accepted"]


def _panel(lines: list[Line], limits=(0.0, 1.0), kind: str = "lines") -> Panel:
    return Panel("a panel", "x", "y", lines, limits, kind)


def test_a_curve_at_zero_or_one_is_not_cut_in_half():
    axis = Canvas().subplots()
    drawing.draw_panel(axis, _panel([Line("sdpo", 0, [(0.0, 0.0), (1.0, 1.0)])]))
    low, high = axis.get_ylim()
    assert low < 0 and high > 1


def test_an_svg_has_text_and_the_colours_of_the_page():
    text = svg.panels(Figure("f", "t", "c", [_panel([Line("sdpo", 0, [(0.0, 0.0), (1.0, 1.0)])])]))[0][1]
    assert "currentColor" in text and "var(--line)" in text and "var(--x0072b2, #0072b2)" in text
    assert re.search(r"<text[^>]*>y</text>", text) and "<script" not in text
    assert text == svg.panels(Figure("f", "t", "c", [_panel([Line("sdpo", 0, [(0.0, 0.0), (1.0, 1.0)])])]))[0][1]


def test_the_legend_names_every_curve_once_over_all_panels():
    one, two = _panel([Line("sdpo", 0, [(0.0, 0.1)])]), _panel([Line("grpo", 1, [(0.0, 0.2)])])
    found = svg.legend(Figure("f", "t", "c", [one, two, one]))
    assert {name for name, _, _ in found} == {"SDPO (seed 0)", "GRPO (seed 1)"} and len(found) == 2
    area = _panel([Line("accepted", 0, [(0.0, 1.0), (1.0, 1.0)], colour="#009E73")], kind="stack")
    assert svg.legend(Figure("f", "t", "c", [area])) == [("accepted", "#009e73", None)]


def test_what_does_not_change_is_said_and_not_drawn(two_algorithms):
    run = load_run(two_algorithms / "livecodebench-sdpo-seed0")
    for i, row in enumerate(run.rows):
        row |= {names.LEARNING_RATE.key: 1e-3, names.GRAD_NORM.key: 1.0 + i}
    figure = metric_figure([run], "optimiser", "optimiser", [names.GRAD_NORM, names.LEARNING_RATE])
    assert [panel.title for panel in figure.panels] == ["gradient norm"]
    assert "Constant, and not drawn: learning rate (0.00100)." in figure.caption


def test_the_figure_of_verdicts_has_their_colours(two_algorithms):
    run = load_run(two_algorithms / "livecodebench-sdpo-seed0")
    figure = share_figure(run, "verdict", "verdict", "verdicts", "share", True, "")
    drawn = {line.label: line.colour for line in figure.panels[0].lines}
    assert drawn == {label: OUTCOMES[label].css for label in drawn} and drawn
    assert np.allclose(sum(y for line in figure.panels[0].lines for _, y in line.points[:1]), 1)
