"""The pages of runs and comparisons in a real browser: two widths, light and dark."""

from __future__ import annotations

import pytest

from sdpo.report import compare, run_report
from sdpo.report.select import choose
from tests.helpers.browser import MISSING, chromium, find_chromium

pytestmark = pytest.mark.skipif(find_chromium() is None, reason=MISSING)

# A pixel is what rounding may leave.
CUT_OFF = """[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1
    && !e.closest('.scroll, pre')).map(e => e.outerHTML.slice(0, 80))"""
SMALLEST = """Math.min(...[...document.querySelectorAll('.panels svg text')].map(
    e => parseFloat(getComputedStyle(e).fontSize) * Math.hypot(e.getScreenCTM().a, e.getScreenCTM().b)))"""
CONTRAST = """(() => { const style = getComputedStyle(document.body);
    const [paper, ink] = [style.backgroundColor, style.color].map(
        colour => colour.match(/\\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0));
    return paper - ink; })()"""


@pytest.fixture(scope="module")
def pages(two_algorithms, tmp_path_factory):
    out = tmp_path_factory.mktemp("pages")
    return [
        run_report(two_algorithms / "livecodebench-sdpo-seed0"),
        compare(choose(["livecodebench"], two_algorithms), out)[0].page,
    ]


def test_nothing_is_cut_off_and_letters_can_be_read(pages):
    with chromium(find_chromium()) as page:
        for path in pages:
            for width, across in ((1280, 2), (400, 1)):
                for dark in (False, True):
                    page.open(path, "", width, 900, dark)
                    assert page.evaluate(CUT_OFF) == []
                    assert page.evaluate(SMALLEST) >= 8
                    assert (page.evaluate(CONTRAST) < 0) == dark
                    columns = "getComputedStyle(document.querySelector('.panels:not(.one)')).gridTemplateColumns"
                    assert len(page.evaluate(columns).split()) == across
                    tables = "[...document.querySelectorAll('.scroll')].every(e => e.scrollWidth <= e.clientWidth)"
                    assert width == 400 or page.evaluate(tables)
        assert page.errors == []
