"""All that the page is made from: what is declared, what was recorded, what was measured afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from studies.evidence.index import Index
from studies.evidence.layout import Layout
from studies.evidence.measures.store import load_all
from studies.evidence.record import Record
from studies.evidence.settings import chosen_by, load_settings
from studies.evidence.studies import ALGORITHMS, RunSpec, Studies, specs

DATASETS = ("train", "held_out")
TITLES = {"train": "training", "held_out": "held-out"}


@dataclass(frozen=True)
class Evidence:
    studies: Studies
    index: Index
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)  # tuning → its settings file, where it chose
    skills: dict[str, dict[str, Any]] = field(default_factory=dict)  # policy → what `measures.skills` wrote
    teacher: dict[str, dict[str, Any]] = field(default_factory=dict)  # run → what `measures.teacher` wrote

    @classmethod
    def load(cls, studies: Studies, layout: Layout) -> Evidence:
        files = {tuning: layout.settings_of(tuning) for tuning in studies.tunings}
        return cls(
            studies,
            Index.of(layout),
            {tuning: load_settings(path) for tuning, path in files.items() if path.exists()},
            load_all(layout.skills),
            load_all(layout.teacher),
        )

    def specs(self, part: str) -> list[RunSpec]:
        """The runs of a part; before the settings are chosen, only their names mean something."""
        settings = self.settings.get(self.studies.parts[part].tuning)
        return specs(self.studies, part, dict.fromkeys(ALGORITHMS, ()) if settings is None else chosen_by(settings))

    def finished(self, part: str) -> list[tuple[RunSpec, Record]]:
        """The finished runs of a part, in the order of their declaration."""
        found = [(spec, self.index.finished(spec.id)) for spec in self.specs(part)]
        return [(spec, record) for spec, record in found if record is not None]

    def failed(self, part: str) -> list[Record]:
        records = [self.index.get(spec.id) for spec in self.specs(part)]
        return [record for record in records if record is not None and not record.finished]

    def variant(self, part: str, variant: str, world: int | None = None) -> Record | None:
        """The finished run of a variant on a world (the first of its worlds if None)."""
        for spec, record in self.finished(part):
            if spec.variant == variant and world in (None, spec.world):
                return record
        return None

    def pairs(self, part: str) -> dict[int, dict[str, Record]]:
        """World → algorithm → record, for the worlds on which both are finished."""
        worlds: dict[int, dict[str, Record]] = {}
        for spec, record in self.finished(part):
            worlds.setdefault(spec.world, {})[spec.algorithm] = record
        return {world: both for world, both in worlds.items() if set(both) == set(ALGORITHMS)}

    def complete_pairs(self, part: str) -> dict[int, dict[str, Record]]:
        """The same if no world is missing, else nothing: what holds on some of them is no verdict."""
        pairs = self.pairs(part)
        return pairs if set(pairs) == set(self.studies.parts[part].worlds) else {}
