"""Programs with tests: LiveCodeBench and everything in its format, judged in the sandbox.

environment    `CodeEnvironment`
problem        a problem with its tests, and how it is asked
livecodebench  JSONL files → problems; lcb_files, lcb_rows, window: files, rows and dates
question       a problem before a split decides what each of its tests is for
splits         which tests and which problems train, and which measure
judging        the sandbox of a run; many programs judged at once
published      feedback as SDPO published it
compact        short feedback for the bundled policy
"""

from __future__ import annotations

from sandbox import Limits, TestCase
from sdpo.envs.code.environment import CodeEnvironment, CodeSettings
from sdpo.envs.code.lcb_rows import LCBRow, write_rows
from sdpo.envs.code.livecodebench import load_livecodebench
from sdpo.envs.code.problem import Problem
from sdpo.envs.code.splits import ProblemSet
from sdpo.envs.code.window import V6_WINDOW, DateWindow

__all__ = [
    "V6_WINDOW",
    "CodeEnvironment",
    "CodeSettings",
    "DateWindow",
    "LCBRow",
    "Limits",
    "Problem",
    "ProblemSet",
    "TestCase",
    "load_livecodebench",
    "write_rows",
]
