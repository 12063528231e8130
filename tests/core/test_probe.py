"""What a probe asks of whom, with the real prompts and gradings, and a policy whose answers are written by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sdpo.algorithms import build_algorithm
from sdpo.config.files import find_recipe, load_recipe
from sdpo.envs import Dataset, Environment
from sdpo.rollout.generation import training_sampling
from sdpo.training.probe import Probe
from sdpo.types import Outcome, Task
from tests.helpers.policy import ScriptedPolicy

TASKS = [Task(f"say-{i}", ({"role": "user", "content": f"Say word {i}."},), content=f"word {i}") for i in range(6)]


class Words(Environment):
    """Solved by the task's own words."""

    def load(self, progress=None):
        return Dataset(TASKS, TASKS, "words")

    async def grade(self, task, turn, purpose):
        assert purpose == "training"
        if turn.text == "broken":
            return Outcome(None, label="no answer")
        solved = turn.text == task.content
        return Outcome(float(solved), solved, None if solved else f"Wanted: {task.content}.", "right")


def recipe_of(algorithm, *overrides):
    common = ("context.template=published", "context.max_prompt_tokens=900", "probe.tasks=4", "probe.samples=2")
    common += () if algorithm == "grpo" else ("context.max_reprompt_tokens=2000",)
    return load_recipe(find_recipe("livecodebench", algorithm), "cpu", (*common, *overrides))


class Engines:
    """Who is served, and how both answer: the policy rightly for even words, the teacher for what it is told."""

    def __init__(self, tokenizer, teacher="told", student="even"):
        self.pool = ScriptedPolicy(tokenizer, self.answer)
        self.teacher, self.student = teacher, student
        self.serves_teacher, self.switches = False, []
        self.answered = []  # (whether by the teacher, prompt)

    async def serve(self, teacher):
        self.serves_teacher = teacher
        self.switches.append(teacher)

    async def answer(self, prompt, i):
        self.answered.append((self.serves_teacher, prompt))
        number = int(prompt.split("Say word ")[1][0])
        told = f"Wanted: word {number}" in prompt
        if self.serves_teacher:
            return f"word {number}" if self.teacher == "knows" or (told and self.teacher == "told") else "no idea"
        if self.student == "broken":
            return "broken"
        return f"word {number}" if number % 2 == 0 or (told and self.student == "reads") else "no idea"


def probe_of(tokenizer, engines, algorithm="sdpo", *overrides):
    recipe = recipe_of(algorithm, *overrides)
    environment = Words(recipe)
    return Probe(recipe, environment, build_algorithm(recipe), environment.load(), tokenizer, engines.pool)


async def run(probe, engines):
    tasks = []
    numbers = await probe.run(engines.serve, lambda: tasks.append(1))
    assert len(tasks) == len(probe.tasks)
    return numbers


FEEDBACK = ("context.demonstration=none", "context.feedback=always")


async def test_policy_and_teacher_beside_each_other(tokenizer):
    engines = Engines(tokenizer)
    probe = probe_of(tokenizer, engines, "sdpo", *FEEDBACK)
    even = np.mean([int(task.content[-1]) % 2 == 0 for task in probe.tasks])
    assert 0 < even < 1
    numbers = await run(probe, engines)
    assert numbers == pytest.approx({
        "probe/student/pass@1": even, "probe/student/pass@2": even, "probe/hinted": 1 - even,
        "probe/teacher/pass@1": 1, "probe/gap": 1,
    })  # fmt: skip
    assert engines.switches == [True, False]
    asked = [prompt for teacher, prompt in engines.answered if teacher]
    assert len(asked) == round(8 * (1 - even)) and all("Wanted: word" in prompt for prompt in asked)
    as_trained = training_sampling(probe.recipe, probe.recipe.run.steps)
    assert {sampling for _, sampling, _ in engines.pool.asked} == {as_trained}


async def test_a_teacher_that_does_not_read_its_hint_shows(tokenizer):
    engines = Engines(tokenizer, teacher="blind")
    numbers = await run(probe_of(tokenizer, engines, "sdpo", *FEEDBACK), engines)
    assert (numbers["probe/teacher/pass@1"], numbers["probe/gap"]) == (0, 0)


async def test_the_same_tasks_and_numbers_each_time(tokenizer):
    engines = Engines(tokenizer)
    probe = probe_of(tokenizer, engines, "sdpo", *FEEDBACK)
    first = await run(probe, engines)
    asked = sorted(seed for _, _, seed in engines.pool.asked)
    assert await run(probe, engines) == first
    seeds = sorted(seed for _, _, seed in engines.pool.asked)
    assert seeds[::2] == seeds[1::2] == asked and len(set(asked)) == len(asked)
    assert probe.tasks == probe_of(tokenizer, engines).tasks


async def test_a_live_teacher_needs_no_publication(tokenizer):
    engines = Engines(tokenizer, student="reads")
    live = ("teacher.kind=live", "teacher.rate=null", "teacher.clock=null")
    numbers = await run(probe_of(tokenizer, engines, "sdpo", *FEEDBACK, *live), engines)
    assert engines.switches == [] and numbers["probe/gap"] == 1


async def test_the_candidate_is_asked_with_the_teachers_hints_and_numbers(tokenizer):
    engines = Engines(tokenizer, teacher="blind", student="reads")
    frozen = ("teacher.kind=frozen", "teacher.rate=null", "teacher.clock=null", "teacher.refresh=probe")
    numbers = await run(probe_of(tokenizer, engines, "sdpo", *FEEDBACK, *frozen), engines)
    assert (numbers["probe/candidate/pass@1"], numbers["probe/teacher/pass@1"]) == (1, 0)
    told = [(teacher, prompt) for teacher, prompt in engines.answered if "Wanted" in prompt]
    assert sorted(p for t, p in told if t) == sorted(p for t, p in told if not t)
    hinted = [seed for _, _, seed in engines.pool.asked[8:]]
    assert sorted(hinted[: len(hinted) // 2]) == sorted(hinted[len(hinted) // 2 :])


async def test_without_a_teacher_the_policy_alone(tokenizer):
    engines = Engines(tokenizer)
    numbers = await run(probe_of(tokenizer, engines, "grpo"), engines)
    assert set(numbers) == {"probe/student/pass@1", "probe/student/pass@2"} and engines.switches == []


async def test_what_cannot_be_graded_is_no_failure(tokenizer):
    engines = Engines(tokenizer, student="broken")
    numbers = await run(probe_of(tokenizer, engines, "sdpo", *FEEDBACK), engines)
    assert np.isnan(numbers["probe/student/pass@1"]) and numbers["probe/hinted"] == 0 and engines.switches == []


async def test_a_prompt_for_which_there_is_no_room_is_left_out(tokenizer):
    engines = Engines(tokenizer)
    probe = probe_of(tokenizer, engines, "sdpo", *FEEDBACK, "context.max_prompt_tokens=100")
    assert (await run(probe, engines))["probe/hinted"] == 0


@pytest.mark.parametrize(("teacher", "copied"), [("blind", 0), ("knows", 1)])
async def test_a_copied_demonstration_is_counted(tokenizer, teacher, copied):
    engines = Engines(tokenizer, teacher)
    probe = probe_of(tokenizer, engines, "sdpo", "context.feedback=never")  # shown: a sibling of the even words
    numbers = await run(probe, engines)
    assert numbers["probe/copied"] == numbers["probe/teacher/pass@1"] == copied
    assert numbers["probe/gap"] == copied - 1


def test_when_it_is_due(tokenizer):
    engines = Engines(tokenizer)
    probe = probe_of(tokenizer, engines, "sdpo", "probe.every=3")
    assert [step for step in range(1, 9) if probe.due(step)] == [1, 4, 7]
    recipe = load_recipe(find_recipe("livecodebench", "sdpo"), "cpu", ("probe.every=0",))
    words = Words(recipe)
    never = Probe(recipe, words, build_algorithm(recipe), words.load(), tokenizer, engines.pool)
    assert not any(never.due(step) for step in (1, 2))
