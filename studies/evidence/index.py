"""Records by the declared runs that they answer."""

from __future__ import annotations

from collections.abc import Iterable

from studies.evidence.record import Record, load_records


class Index:
    def __init__(self, records: Iterable[Record]) -> None:
        self.records = list(records)
        self._by_run = {run: record for record in self.records for run in record.used_by}

    @classmethod
    def of(cls, layout) -> Index:
        return cls(load_records(layout.records))

    def get(self, run: str) -> Record | None:
        """The record that answers the declared run `<part>/<name>`, finished or failed."""
        return self._by_run.get(run)

    def finished(self, run: str) -> Record | None:
        record = self.get(run)
        return record if record is not None and record.finished else None
