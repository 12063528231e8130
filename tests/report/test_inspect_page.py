"""The page of `sdpo inspect` in a real browser, where there is one."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sdpo.report.inspect_page import inspect_page
from sdpo.report.picks import picked
from sdpo.report.responses import step_responses
from sdpo.tracking.rollouts import read_rollouts
from tests.helpers.browser import MISSING, chromium, find_chromium
from tests.helpers.credit import make_run

pytestmark = pytest.mark.skipif(find_chromium() is None, reason=MISSING)
STEPS = range(1, 7)
READY = "document.querySelector('#view .text') !== null"


@pytest.fixture(scope="module")
def browser():
    with chromium(find_chromium()) as page:
        yield page


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Tasks 0 to 4 in steps of 3: a task comes back in every second step or so; the third group has no tokens."""
    return make_run(tmp_path_factory.mktemp("runs") / "made", steps=len(STEPS))


@pytest.fixture(scope="module")
def file(run):
    return inspect_page(run)


@pytest.fixture
def opened(browser, file):
    def open_page(address: str = "", **window):
        browser.errors.clear()
        browser.open(file, address, **window)
        browser.wait(READY)
        return browser

    yield open_page
    assert browser.errors == []


def title(page) -> str:
    return page.evaluate("document.getElementById('title').textContent")


def text(page, selector: str) -> str:
    return page.evaluate(f"document.querySelector({json.dumps(selector)}).innerText")


def settled(page, expected: str) -> None:
    page.wait(f"document.getElementById('title').textContent.startsWith({json.dumps(expected)}) && {READY}")


def test_numbers_on_the_page_are_those_of_the_tables(opened, run):
    page, i = opened(), 0
    fields = {"own": "log_probs", "teacher": "teacher_log_probs", "sampler": "sampler_log_probs", "entropy": "entropy",
              "teacherEntropy": "teacher_entropy", "texts": "tokens"}  # fmt: skip
    nested = {"topOwn": "top_log_probs", "topTeacher": "top_teacher_log_probs", "topTexts": "top_tokens"}
    for step in STEPS:
        for row, response in zip(read_rollouts(run / "rollouts", step), step_responses(run, step), strict=True):
            found = page.evaluate(
                f"load({i}).then(r => ({{...r, tokens: r.tokens && Object.fromEntries(Object.entries(r.tokens)"
                ".map(([name, value]) => [name, ArrayBuffer.isView(value) ? Array.from(value) : value]))}))"
            )
            names = {
                "prompt": "prompt",
                "response": "response",
                "feedback": "feedback",
                "teacherPrompt": "teacher_prompt",
            }
            assert {n: found[n] for n in names} == {n: row[column] for n, column in names.items()}
            if row["token_ids"] is None:
                assert found["tokens"] is None
            else:
                assert {n: found["tokens"][n] for n in fields} == {n: row[column] for n, column in fields.items()}
                for name, column in nested.items():
                    flat = None if row[column] is None else [x for each in row[column] for x in each]
                    assert found["tokens"][name] == flat
                gains = response.tokens.gains
                assert found["tokens"]["gains"] == (None if gains is None else gains.tolist())
            assert page.evaluate(f"[index.advantage[{i}], index.reward[{i}]]") == [response.advantage, row["reward"]]
            i += 1
    assert page.evaluate("total") == i == 72


def test_every_token_is_coloured_and_its_card_says_what_the_table_does(opened, run):
    [first, *_] = picked(r for step in STEPS for r in step_responses(run, step))
    page = opened()
    settled(
        page, f"Step {first.step} · {first.task} · sample {first.row['sample']}"
    )  # what the teacher has most to say of
    spans = page.evaluate(
        "[...document.querySelectorAll('[data-live] .token')]"
        ".map(s => [s.textContent, s.className, s.style.getPropertyValue('--a')])"
    )
    assert [s[0] for s in spans] == first.tokens.texts
    gains = first.tokens.gains.astype(float)
    assert [("more" in s[1].split(), "less" in s[1].split()) for s in spans] == [(g > 0, g < 0) for g in gains]
    np.testing.assert_allclose([float(s[2]) for s in spans], np.minimum(1, np.sqrt(np.abs(gains) / 5)), atol=6e-4)
    drawn = page.evaluate(
        "[...document.querySelectorAll('[data-live] .token')].map(s => getComputedStyle(s).backgroundColor)"
    )
    assert len(set(drawn)) > 5
    for t in (0, int(np.abs(gains).argmax())):
        page.point(f'[data-live] [data-t="{t}"]')
        page.wait("!document.getElementById('card').hidden")
        said = text(page, "#card").replace("−", "-")
        assert f"{gains[t]:+.3f}" in said and f"token {t} of {len(gains)}" in said
        for value in (first.tokens.entropy[t], first.tokens.teacher_entropy[t], first.tokens.sampler_log_probs[t]):
            assert f"{value:.3f}" in said
        rows = page.evaluate(
            "[...document.querySelectorAll('#card tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
        )
        assert len(rows) == 6
        for (_, own, theirs), p, q in zip(
            rows,
            [first.tokens.log_probs[t], *first.tokens.top_log_probs[t]],
            [first.tokens.teacher_log_probs[t], *first.tokens.top_teacher_log_probs[t]],
            strict=True,
        ):
            for shown, value in ((own, p), (theirs, q)):
                assert float(shown.removesuffix(" %")) == pytest.approx(100 * np.exp(float(value)), rel=0.06, abs=0.006)
    page.point("h1")
    page.wait("document.getElementById('card').hidden")
    assert f"GRPO: {first.advantage:+.3f} for every token".replace("-", "−") in text(page, "#view")


def test_filters_and_orders(opened, run):
    everything = [r for step in STEPS for r in step_responses(run, step)]
    page = opened()

    def found() -> list[int]:
        return page.evaluate("found")

    def numbers(wanted) -> list[int]:
        return [i for i, r in enumerate(everything) if wanted(r)]

    assert found() == list(range(72)) and "72 of 72" in text(page, "#found")
    page.choose("#outcome", "solved")
    assert found() == numbers(lambda r: r.outcome == "solved")
    page.choose("#outcome", "verdict " + str(page.evaluate("index.verdicts.indexOf('sandbox error')")))
    assert found() == numbers(lambda r: r.row["verdict"] == "sandbox error")
    page.choose("#outcome", "")
    page.choose("#step", "3")
    assert found() == numbers(lambda r: r.step == 3)
    page.choose("#task", "task/4")
    assert found() == numbers(lambda r: r.step == 3 and r.task == "task/4") and "4 of 72" in text(page, "#found")
    page.choose("#step", "")
    page.choose("#task", "/4")
    assert found() == numbers(lambda r: r.task == "task/4")
    page.choose("#task", "nothing")
    assert found() == [] and page.evaluate("document.querySelectorAll('.row').length") == 0
    page.choose("#task", "")
    page.point("#kept", click=True)
    assert found() == numbers(lambda r: r.tokens is not None)
    page.choose("#order", "disagreement")
    largest = [everything[i].tokens.disagreement for i in found()]
    assert [d is None for d in largest] == sorted(d is None for d in largest)  # those without a teacher come last
    assert (known := [d for d in largest if d is not None]) == sorted(known, reverse=True) and len(known) == 36
    page.choose("#order", "advantage")
    assert (sizes := [abs(everything[i].advantage or 0) for i in found()]) == sorted(sizes, reverse=True)
    page.choose("#order", "length")
    assert (sizes := [everything[i].row["response_tokens"] for i in found()]) == sorted(sizes, reverse=True)


def test_keys(opened):
    page = opened("#step=1&task=task%2F3&sample=0")
    settled(page, "Step 1 · task/3 · sample 0")
    for key, expected in (("j", "sample 1"), ("ArrowDown", "sample 2"), ("k", "sample 1"), ("ArrowUp", "sample 0")):
        page.key(key)
        settled(page, f"Step 1 · task/3 · {expected}")
    page.key("ArrowRight")
    page.key("ArrowRight")
    assert page.evaluate("location.hash") == "#step=1&task=task%2F3&sample=0&token=1"
    assert "token 1 of" in text(page, "#card")
    page.key("ArrowLeft")
    assert "token 0 of" in text(page, "#card")
    page.key("Escape")
    assert page.evaluate("document.getElementById('card').hidden") and "token" not in page.evaluate("location.hash")
    page.key("m")
    largest = page.evaluate("state.response.tokens.gains.reduce((best, g) => Math.max(best, Math.abs(g)), 0)")
    assert f"{largest:.3f}" in text(page, "#gain")
    page.key("g")
    page.wait("document.querySelectorAll('.members section').length === 4")
    assert page.evaluate("location.hash") == "#step=1&task=task%2F3&sample=0&view=group"
    page.key("Escape")
    page.wait("document.querySelector('[data-live]') !== null")
    page.key("?")
    assert page.evaluate("document.getElementById('help').open")
    page.key("j")  # nothing moves behind the help
    page.key("Escape")
    assert not page.evaluate("document.getElementById('help').open") and title(page).endswith("sample 0")
    page.key("/")
    assert page.evaluate("document.activeElement.id") == "task"
    page.key("j")  # a letter of the task
    assert page.evaluate("document.getElementById('task').value") == "j" and title(page).endswith("sample 0")
    page.key("Escape")
    assert page.evaluate("document.activeElement.id") != "task"


def test_the_steps_of_one_task(opened, run):
    steps = [s for s in STEPS if any(r.task == "task/3" for r in step_responses(run, s))]
    page = opened("#step=1&task=task%2F3&sample=2")
    settled(page, "Step 1 ·")
    assert steps[0] == 1 and f"Drawn in steps {', '.join(map(str, steps))}." in text(page, "#when")
    assert page.evaluate("document.getElementById('slider').max") == str(len(steps) - 1)
    page.choose("#slider", "2")
    settled(page, f"Step {steps[2]} · task/3 · sample 2")
    page.key("[")
    settled(page, f"Step {steps[1]} · task/3 · sample 2")
    page.key("]")
    settled(page, f"Step {steps[2]} · task/3 · sample 2")
    solved = [r.outcome == "solved" for r in step_responses(run, steps[2]) if r.task == "task/3"]
    assert f"{sum(solved)} of 3 of its group solved" in text(page, "#when")  # the fourth could not be graded


def test_addresses_and_history(opened):
    page = opened("#step=2&task=task%2F2&sample=2&token=4")
    settled(page, "Step 2 · task/2 · sample 2")
    assert "token 4 of" in text(page, "#card")
    page.evaluate("location.hash = '#step=5&task=task%2F1&sample=0&view=group'")
    settled(page, "Step 5 · task/1 · sample 0")
    page.wait("document.querySelectorAll('.members section').length === 4")
    page.point(".members section:nth-child(3) button", click=True)
    settled(page, "Step 5 · task/1 · sample 2")
    page.evaluate("history.back()")
    settled(page, "Step 5 · task/1 · sample 0")
    page.evaluate("history.back()")
    settled(page, "Step 2 · task/2 · sample 2")
    page = opened("#step=99&task=none")
    assert "is not in this file" in text(page, "#found")


def test_buttons(opened):
    page = opened("#step=1&task=task%2F3&sample=0")
    settled(page, "Step 1 · task/3 · sample 0")
    page.point("#next", click=True)
    settled(page, "Step 1 · task/3 · sample 1")
    page.point("#previous", click=True)
    settled(page, "Step 1 · task/3 · sample 0")
    page.point("#largest", click=True)
    assert not page.evaluate("document.getElementById('card').hidden")
    page.point("#group", click=True)
    page.wait("document.querySelectorAll('.members section').length === 4")
    page.point("#group", click=True)
    page.wait("document.querySelector('[data-live]') !== null")
    page.point('[data-live] [data-t="2"]', click=True)
    assert "token 2 of" in text(page, "#card")
    page.point("#title", click=True)
    assert page.evaluate("document.getElementById('card').hidden")
    page.point(".row:nth-child(4)", click=True)
    settled(page, "Step 1 · task/3 · sample 3")
    page.point("#open-help", click=True)
    assert "How to read this page" in text(page, "#help")
    page.point("#help button", click=True)
    assert not page.evaluate("document.getElementById('help').open")


def test_what_is_not_there_is_said(opened):
    page = opened("#step=1&task=task%2F3&sample=1")
    settled(page, "Step 1 · task/3 · sample 1")
    assert "No teacher re-scored this response" in text(page, "#view")
    page.key("ArrowRight")
    assert (
        "No teacher" in text(page, "#card")
        and "policy π" in text(page, "#card")
        and "teacher q" not in text(page, "#card")
    )
    page = opened("#step=1&task=task%2F0&sample=0")
    settled(page, "Step 1 · task/0")
    assert "tracking.tokens_mb" in text(page, "#view")
    page = opened("#step=1&task=task%2F3&sample=3")
    settled(page, "Step 1 · task/3 · sample 3")
    assert "GRPO: none: it has no reward" in text(page, "#view") and "no reward" in text(page, ".facts")


def test_text_of_a_model_is_never_read_as_html(opened, run):
    page = opened()
    hostile = next(i for i, r in enumerate(step_responses(run, 1)) if r.outcome == "failed")
    page.evaluate(f"show({hostile})")
    page.wait(f"document.getElementById('view').textContent.includes('onerror=') && state.i === {hostile}")
    for view in ("false", "true"):
        page.evaluate(f"show({hostile}, {{group: {view}}})")
        assert page.evaluate("document.querySelectorAll('#view img, #view b, #view script').length") == 0
    page.evaluate(f"show({hostile}, {{group: false}})")
    page.wait("document.querySelector('[data-live]') !== null")
    assert "</script>" in page.evaluate("[...document.querySelectorAll('#view *')].map(e => e.textContent).join(' ')")
    assert page.evaluate("document.title") == "made: credit of every token"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1280])
def test_it_fits_the_window_in_light_and_dark(opened, width, dark):
    page = opened("#step=1&task=task%2F3&sample=0&token=3", width=width, dark=dark)
    settled(page, "Step 1 · task/3 · sample 0")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    wide = (
        "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1).length"
    )
    assert page.evaluate(wide) == 0
    card = page.evaluate(
        "(r => [r.left, r.top, r.right, r.bottom])(document.getElementById('card').getBoundingClientRect())"
    )
    assert card[0] >= 0 and card[1] >= 0 and card[2] <= width and card[3] <= 800
    paper = [int(v) for v in page.evaluate("getComputedStyle(document.body).backgroundColor")[4:-1].split(",")]
    assert (sum(paper) < 150) is dark
    assert page.evaluate(WORST_CONTRAST) > 4.5
    if width == 400:
        assert not page.evaluate("document.getElementById('side').checkVisibility()")
        page.point("#open-list", click=True)
        assert page.evaluate(
            "document.getElementById('side').checkVisibility() && document.querySelectorAll('.row').length > 3"
        )
        page.point(".row:nth-child(2)", click=True)
        settled(page, "Step 1 · task/3 · sample 1")
        assert not page.evaluate("document.getElementById('side').checkVisibility()")


# The least contrast of ink and background (WCAG 2) over all tokens, their backgrounds mixed with what is below them.
WORST_CONTRAST = """(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const mixed = (...colours) => { colours.forEach(c => { canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1); });
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3); };
  const light = (c) => c.map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const style = (e) => getComputedStyle(e);
  return Math.min(...[...document.querySelectorAll("#view .token")].map(token => {
    const back = light(mixed(style(document.body).backgroundColor, style(token.parentElement).backgroundColor,
      style(token).backgroundColor));
    const ink = light(mixed(style(token).color));
    return (Math.max(back, ink) + .05) / (Math.min(back, ink) + .05);
  }));
})()"""


@pytest.mark.slow
def test_ten_thousand_responses_are_a_list_of_a_few_rows(browser, tmp_path):
    """What is not looked at is neither unpacked nor drawn."""
    file = inspect_page(make_run(tmp_path / "large", steps=50, groups=25, responses=8, kept=25, tasks=100))
    browser.errors.clear()
    browser.open(file)
    browser.wait(READY)
    assert browser.evaluate("[total, found.length]") == [10_000, 10_000]
    assert browser.evaluate("document.querySelectorAll('.row').length") < 60 and browser.evaluate("unpacked.size") == 1
    browser.evaluate("document.getElementById('list').scrollTop = 1e9")
    browser.wait("[...document.querySelectorAll('.row')].some(row => row.dataset.i === '9999')")
    browser.choose("#order", "disagreement")
    for _ in range(40):
        browser.key("j")
    browser.wait(f"state.i === found[40] && {READY}")
    assert browser.evaluate("unpacked.size") <= browser.evaluate("KEPT_BLOCKS") and browser.errors == []
