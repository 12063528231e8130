"""Options of supervision that would do nothing are errors."""

from __future__ import annotations

import pytest

from sdpo.config.files import find_recipe, load_recipe
from sdpo.errors import UserError


@pytest.mark.parametrize(
    "given, named",
    [
        (["supervision.first_s=5"], "supervision.first_s"),
        (["run.max_restarts=2", "supervision.same_step=5"], "supervision.same_step"),
    ],
)
def test_an_option_without_effect_is_refused(given, named):
    with pytest.raises(UserError, match=rf"{named}.*has no effect"):
        load_recipe(find_recipe("livecodebench", "sdpo"), "cpu", given)


def test_the_defaults_notice_within_half_a_minute_and_end():
    recipe = load_recipe(find_recipe("livecodebench", "sdpo"), "cpu", [])
    settings = recipe.supervision
    assert 2 * settings.heartbeat_s + settings.floor_s < 30
    assert 0 < settings.same_step <= recipe.run.max_restarts
