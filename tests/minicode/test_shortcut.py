"""The corpus's shortcut says what the sandbox says."""

from __future__ import annotations

import random

import pytest

from sandbox import Job, Limits, Sandbox, Verdict
from sdpo.envs.code.compact import compact_feedback
from sdpo.envs.minicode.examples import make_test
from studies.pretrain.code_corpus import attempt, random_task
from studies.pretrain.shortcut import judge

PROGRAMS = 1000


@pytest.mark.timeout(180)
def test_shortcut_equals_sandbox_on_random_programs():
    rng = random.Random(20260)
    jobs, quick = [], []
    while len(jobs) < PROGRAMS:
        task = random_task(rng)
        test = make_test(task, rng)
        program = attempt(task, rng)
        short = judge(program, test, task.files)
        if " at 0x" in compact_feedback(short):  # an address: the corpus leaves such programs out
            continue
        jobs.append(Job(program, [test], Limits(cpu_time_s=0.3, wall_time_s=20.0), task.files))
        quick.append(short)
    with Sandbox() as sandbox:
        slow = sandbox.judge_many(jobs)
    different = [
        (job.code, short.verdict, long.verdict, compact_feedback(short), compact_feedback(long))
        for job, short, long in zip(jobs, quick, slow, strict=True)
        if (short.verdict, compact_feedback(short)) != (long.verdict, compact_feedback(long))
    ]
    assert not different, different[:5]
    seen = {judgement.verdict for judgement in slow}
    assert seen >= {
        Verdict.ACCEPTED,
        Verdict.WRONG_ANSWER,
        Verdict.RUNTIME_ERROR,
        Verdict.COMPILE_ERROR,
        Verdict.TIME_LIMIT,
        Verdict.NO_CODE,
    }
    errors = {test.exception_type for judgement in slow for test in judgement.tests}
    assert errors >= {"AttributeError", "NameError", "TypeError", "IndexError", "SyntaxError"}
