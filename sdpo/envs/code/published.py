"""Feedback in the LeetCode-like form that SDPO published (arXiv 2601.20802), made safe to stand in a prompt."""

from __future__ import annotations

import builtins
import re

from sandbox import Assertion, Judgement, TestResult, Verdict
from sandbox.text import clean
from sdpo.envs.sanitize import CUT, sanitize, sanitize_inline

MAX_CHARACTERS = 2000
MAX_LINES = 8
MAX_LINE = 250

_CODE_NAMES = {"<module>", "<lambda>", "<listcomp>", "<genexpr>", "<dictcomp>", "<setcomp>"}  # Python's own
_LIKE_AN_EXCEPTION = re.compile(r"\w*(Error|Exception|Warning|SIG[A-Z]+|signal \d+)", re.ASCII)


def published_feedback(judgement: Judgement) -> str:
    """At most 2,000 characters; empty for an accepted program.

    First a runtime error with its last input; else the first time-out; else that there is no code; else the two
    wrong answers whose input and expected output are shortest.  Tests are trusted and only cut; what the program wrote
    (output, exception, source lines) is made safe by `sanitize`.
    """
    return clean(_cut(_render(judgement), MAX_CHARACTERS))


def error_line(test: TestResult, limit: int) -> str:
    """`KeyError: 3`: the exception's type and its text.  One that is not named like Python's is not ours."""
    kind, text = test.exception_type or "Error", test.message or ""
    known = isinstance(getattr(builtins, kind, None), type) or _LIKE_AN_EXCEPTION.fullmatch(kind)
    return sanitize_inline(f"{kind}: {text}", limit) if known else sanitize(f"{kind}: {text}", limit)


def _render(judgement: Judgement) -> str:
    if judgement.passed:
        return ""
    if judgement.verdict is Verdict.NO_CODE:
        if judgement.truncated:
            return "The response was cut off at its length limit before a complete code block."
        return "No code block was found in the response."
    by_verdict: dict[Verdict, list[TestResult]] = {}
    for test in judgement.tests:
        by_verdict.setdefault(test.verdict, []).append(test)
    for verdict in (Verdict.COMPILE_ERROR, Verdict.RUNTIME_ERROR, Verdict.MEMORY_LIMIT, Verdict.OUTPUT_LIMIT):
        if verdict in by_verdict:
            return _error(by_verdict[verdict][0])
    if Verdict.TIME_LIMIT in by_verdict:
        test = by_verdict[Verdict.TIME_LIMIT][0]
        return f"Time Limit Exceeded\nLast Executed Input\n{_block(last_input(test))}"
    wrong = sorted(by_verdict.get(Verdict.WRONG_ANSWER, []), key=lambda test: len(test.input) + len(test.expected))
    if wrong:
        return "\n\n".join(_wrong_answer(test) for test in wrong[:2])
    return "The program could not be judged."


def _error(test: TestResult) -> str:
    headings = {Verdict.MEMORY_LIMIT: "Memory Limit Exceeded", Verdict.OUTPUT_LIMIT: "Output Limit Exceeded"}
    lines = [headings.get(test.verdict, "Runtime Error")]
    if test.exception_type:
        lines.append(error_line(test, 500))
    for frame in test.frames[-MAX_LINES:]:
        function = frame.function if frame.function in _CODE_NAMES else sanitize_inline(frame.function, MAX_LINE)
        where = f"Line {frame.line} in {function} ({frame.file})"
        lines.append(where + (f": {sanitize_inline(frame.source, MAX_LINE)}" if frame.source else ""))
    if test.verdict is not Verdict.COMPILE_ERROR:
        lines += ["Last Executed Input", _block(last_input(test))]
    return "\n".join(lines)


def last_input(test: TestResult) -> str:
    """What the program was given, as far as a reader is told: of test code the assertion or the call, not all of it."""
    if test.assertion is not None:
        return test.assertion.source
    return test.input if test.testtype != "assertions" else ""


def call_lines(test: TestResult) -> list[str]:
    """`f(1, 2) returned 3`: the last calls of the program up to the failed assertion, which may be in a loop."""
    calls = () if test.assertion is None else test.assertion.calls
    return [f"{sanitize_inline(call, MAX_LINE)} returned {sanitize_inline(result, MAX_LINE)}" for call, result in calls]


def _failed_assertion(test: TestResult, failed: Assertion) -> str:
    lines = [f"Test Case {test.index + 1}: Wrong Answer"]
    lines.append(f"Assertion in line {failed.line} ({test.assertions_passed} of {test.assertions} assertions passed)")
    lines.append(_block(failed.source))
    if failed.calls:
        lines += ["Calls", *call_lines(test)]
    if failed.left is not None and failed.right is not None:
        lines += ["Output", sanitize(failed.left, MAX_LINE), "Expected", sanitize(failed.right, MAX_LINE)]
    if test.message:
        lines += ["Message", sanitize(test.message, MAX_LINE)]
    return "\n".join(lines)


def _wrong_answer(test: TestResult) -> str:
    if test.assertion is not None:
        return _failed_assertion(test, test.assertion)
    shown = test.stdout if test.value is None else test.value
    return (
        f"Test Case {test.index + 1}: Wrong Answer\n"
        f"Input\n{_block(test.input)}\n"
        f"Output\n{sanitize(shown or '', MAX_LINE)}\n"
        f"Expected\n{_cut(test.expected, MAX_LINE)}"
    )


def _block(text: str) -> str:
    """At most 8 lines of 250 characters."""
    lines = text.split("\n", MAX_LINES)
    shown = [_cut(line, MAX_LINE) for line in lines[:MAX_LINES]]
    return "\n".join(shown + [CUT] if len(lines) > MAX_LINES and lines[MAX_LINES] else shown)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - len(CUT)] + CUT
