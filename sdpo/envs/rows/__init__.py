"""Rows of any origin as tasks, for environments whose tasks stand in files.

files    JSON Lines, JSON lists and Parquet, packed or not: rows with their numbers
source   which files, Hugging Face data set or function the section `data` means
columns  a row as a task: `data.columns`
load     the whole way to a `Dataset`: `load_rows`
"""

from __future__ import annotations

from sdpo.envs.rows.columns import cell, make_task, needed, read_messages
from sdpo.envs.rows.files import BadRow, Row, RowKind
from sdpo.envs.rows.load import ROW_INERT, ROW_OPTIONS, check_rows, load_rows

__all__ = [
    "ROW_INERT",
    "ROW_OPTIONS",
    "BadRow",
    "Row",
    "RowKind",
    "cell",
    "check_rows",
    "load_rows",
    "make_task",
    "needed",
    "read_messages",
]
