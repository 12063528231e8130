"""What a judgement says, for a person at a terminal."""

from __future__ import annotations

from .types import Judgement, TestResult, Verdict

_LINES, _CHARACTERS = 8, 250


def report(judgement: Judgement) -> str:
    """The first test that failed: its input, what came out, what was expected.  Empty for an accepted program."""
    if judgement.passed:
        return ""
    failed = judgement.first_failure
    if failed is None:
        return printable(judgement.message or judgement.verdict.value)
    parts = [f"test {failed.index + 1}: {failed.verdict.value}"]
    if failed.assertion is None:
        parts.append(f"input:\n{_block(failed.input)}")
    else:
        where = f"line {failed.assertion.line} of the tests, {failed.assertions_passed} of {failed.assertions} passed"
        parts.append(f"{where}:\n{_block(failed.assertion.source)}")
    if failed.exception_type:
        where = "".join(f"\n  {f.file}, line {f.line}: {f.source}" for f in failed.frames)
        parts.append(printable(f"{failed.exception_type}: {failed.message or ''}{where}"))
    if failed.assertion is not None:
        parts += [printable(f"{call} -> {result}") for call, result in failed.assertion.calls]
    elif failed.verdict is Verdict.WRONG_ANSWER:
        parts += [f"output:\n{_block(_shown(failed))}", f"expected:\n{_block(failed.expected)}"]
    return "\n".join(parts)


def printable(text: str) -> str:
    """`text` whose control characters are shown, not obeyed; line ends and tabs stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def _shown(test: TestResult) -> str:
    return (test.stdout if test.value is None else test.value) or ""


def _block(text: str) -> str:
    lines = [line[:_CHARACTERS] for line in printable(text).split("\n")]
    return "\n".join([*lines[:_LINES], "…"] if len(lines) > _LINES else lines)
