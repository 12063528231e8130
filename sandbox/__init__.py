"""Run and judge untrusted Python programs: isolated, fast, with LiveCodeBench's verdict and structured results."""

from __future__ import annotations

from .client import Sandbox
from .errors import BadTests, IsolationUnavailable, SandboxError
from .extract import extract_code
from .types import Assertion, Frame, Job, Judgement, Limits, TestCase, TestResult, Verdict

__all__ = [
    "Assertion",
    "BadTests",
    "Frame",
    "IsolationUnavailable",
    "Job",
    "Judgement",
    "Limits",
    "Sandbox",
    "SandboxError",
    "TestCase",
    "TestResult",
    "Verdict",
    "extract_code",
]
