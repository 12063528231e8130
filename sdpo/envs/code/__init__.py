"""Problems: where they come from, which of their tests train and measure, and which of them are held out."""

from __future__ import annotations

from sdpo.envs.code.lcb_rows import Row, write_rows
from sdpo.envs.code.livecodebench import load_livecodebench
from sdpo.envs.code.splits import Dataset
from sdpo.envs.code.window import V6_WINDOW, DateWindow
from sdpo.envs.report import DataReport

__all__ = ["V6_WINDOW", "DataReport", "Dataset", "DateWindow", "Row", "load_livecodebench", "write_rows"]
