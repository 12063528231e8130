"""metrics.csv: metrics.jsonl as one wide table, for spreadsheets and other programs."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sdpo.tracking.disk import atomic_write
from sdpo.tracking.metrics_file import read_metrics
from sdpo.tracking.sink import Sink


class CsvFile(Sink):
    """Keeps `<folder>/metrics.csv` equal to `<folder>/metrics.jsonl`: a column per metric, empty where not measured.

    A row with a metric that no row before it had (an evaluation, say) rewrites the file; others are appended.
    """

    def __init__(self, folder: Path, warn: Callable[[str], None] = warnings.warn) -> None:
        super().__init__("The CSV file", warn)
        self._source, self._path = Path(folder) / "metrics.jsonl", Path(folder) / "metrics.csv"
        self._columns: list[str] = []
        if read_metrics(self._source):
            self._try(self._rewrite)  # resumed: later steps than the checkpoint's are gone

    @property
    def description(self) -> str:
        return f"CSV: {self._path}"

    def log(self, row: Mapping[str, Any]) -> None:
        """`row` is in metrics.jsonl already."""
        self._try(lambda: self._append(row) if row.keys() <= set(self._columns) else self._rewrite())

    def _append(self, row: Mapping[str, Any]) -> None:
        with self._path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def _rewrite(self) -> None:
        rows = read_metrics(self._source)
        self._columns = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns)
        writer.writeheader()
        writer.writerows(rows)
        atomic_write(self._path, text.getvalue().encode())
