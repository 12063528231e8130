"""Short feedback for the bundled policy, whose vocabulary has a few hundred words.

The published feedback (`published`) takes a few hundred of its tokens; this one takes about thirty:

    Input: 3 1 2
    Expected: 6 2 4 / 12
    Output: 4 2 3 / 9

The last line says what the program printed or returned, or else what ended it, in Python's own words.  Lines are joined
by " / ", and the brackets and commas of JSON lists are left out, so that both kinds of problem read alike.
"""

from __future__ import annotations

from sandbox import Judgement, TestResult, Verdict
from sdpo.envs.code.published import error_line, last_input
from sdpo.envs.sanitize import sanitize, sanitize_inline

TEXT_CHARACTERS = 80  # of an input and of an output
ERROR_CHARACTERS = 160
NO_CODE = "No code"
_PLAIN = {
    Verdict.TIME_LIMIT: "Time limit exceeded",
    Verdict.MEMORY_LIMIT: "Memory limit exceeded",
    Verdict.OUTPUT_LIMIT: "Output limit exceeded",
}


def compact_feedback(judgement: Judgement) -> str:
    """What happened in the first test that failed, in at most three lines; empty for an accepted program."""
    if judgement.passed:
        return ""
    if judgement.verdict is Verdict.NO_CODE:
        return NO_CODE
    failed = next((test for test in judgement.tests if not test.passed), None)
    if failed is None:
        return sanitize(judgement.message.split("\n")[0], ERROR_CHARACTERS) or "Could not be judged"
    return f"Input:{_values(last_input(failed))}\nExpected:{_values(_expected(failed))}\n{_outcome(failed)}"


def _expected(test: TestResult) -> str:
    """Of test code, what the failed comparison has beside the program's value."""
    return test.expected if test.assertion is None else test.assertion.right or "True"


def _outcome(test: TestResult) -> str:
    if test.verdict is Verdict.WRONG_ANSWER:
        shown = test.stdout if test.value is None else test.value
        if test.assertion is not None and test.value is None:
            shown = test.assertion.calls[-1][1] if test.assertion.calls else "False"
        return f"Output:{_values(shown or '')}"
    if test.verdict in _PLAIN:
        return _PLAIN[test.verdict]
    return error_line(test, ERROR_CHARACTERS).split("\n")[0]


def _values(text: str) -> str:
    """One line, with a space in front: numbers are then the same tokens wherever they stand."""
    line = " / ".join(part.strip() for part in text.strip().split("\n"))
    for mark in "[],":
        line = line.replace(mark, "")
    return " " + sanitize_inline(line, TEXT_CHARACTERS)
