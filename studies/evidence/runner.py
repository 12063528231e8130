"""Make the declared runs, one after the other, and keep a record of each.

A run with a record is not made again, whatever it was made for: parts share runs.  One that was broken off goes on from
its checkpoint.  One that failed leaves a record with the reason, and is tried again when asked to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from sdpo.config.files import find_recipe, load_recipe, load_resolved
from sdpo.config.schema import Recipe
from sdpo.errors import UserError
from sdpo.tracking import RunFolder, set_aside
from sdpo.tracking.lock import FolderLock
from studies.evidence.attempt import PROGRAM, STOPPED, attempt, attempts, command, last_words
from studies.evidence.collect import collect
from studies.evidence.identity import Identity, identity, identity_of
from studies.evidence.layout import Layout
from studies.evidence.progress import Progress
from studies.evidence.record import FAILED, FINISHED, Record, load_records
from studies.evidence.studies import RunSpec

_FAILURES_IN_A_ROW = 3  # then it is the machine


class RunsStopped(Exception):
    """The user stopped; what is done is recorded."""


class Runner:
    def __init__(
        self, layout: Layout, progress: Progress, retry: bool = False, program: Sequence[str] = PROGRAM
    ) -> None:
        """`retry`: try failed runs again, each once.  `program`: what is called with the arguments of a run."""
        self.layout, self.progress, self.retry, self.program = layout, progress, retry, program
        self.records: list[tuple[Identity | None, Record]] = []
        self.made: set[str] = set()  # by this runner
        self.failures = 0  # in a row

    def run(self, specs: Sequence[RunSpec]) -> None:
        """Every run that has no record yet.  Raises RunsStopped, and UserError where going on would make no sense."""
        planned = [(spec, resolve(spec, self.layout)) for spec in specs]
        with _alone(self.layout.runs):  # before the records are read: another runner may write them
            self.records = [(identity_of(record), record) for record in load_records(self.layout.records)]
            todo = [(spec, recipe) for spec, recipe in planned if not self._answered(spec, recipe)]
            self.progress.plan([recipe.run.steps for _, recipe in todo], [record for _, record in self.records])
            for spec, recipe in todo:
                if not self._answered(spec, recipe):  # a run of this very list may have answered it meanwhile
                    self._make(spec, recipe)
                self.progress.done()

    def _find(self, recipe: Recipe) -> Record | None:
        same = identity(recipe)
        return next((record for known, record in self.records if known == same), None)

    def _answered(self, spec: RunSpec, recipe: Recipe) -> bool:
        """Whether there is a record of the run; it then names `spec` among those that it answers."""
        record = self._find(recipe)
        if record is not None:
            if not record.finished and self.retry and record.run not in self.made:
                return False
            if spec.id not in record.used_by:
                record.used_by.append(spec.id)
                record.save(self.layout.record(record.run))
            return True
        for _, record in self.records:
            if spec.id in record.used_by:
                raise UserError(
                    f"{spec.id} was recorded with other settings than are declared now. Declare the new ones under "
                    "another name, so that no run is left out, or go back to those that it was made with: "
                    f"{self.layout.record(record.run)}"
                )
        return False

    def _make(self, spec: RunSpec, recipe: Recipe) -> None:
        old = self._find(recipe)
        if old is not None and old.run != spec.id:  # tried again where it failed
            part, name = old.run.split("/")
            spec = replace(spec, part=part, name=name)
            recipe = resolve(spec, self.layout)
        folder = self.layout.folder(spec.id)
        self.progress.begin(spec.id, folder, recipe.run.steps)
        if _holds_another(folder, recipe):
            set_aside(folder)
        status = attempt(spec, folder, self.progress.tick, self.program)
        if status == STOPPED:
            raise RunsStopped
        self.made.add(spec.id)
        self._record(spec, recipe, folder, status, old)
        self.failures = 0 if status == 0 else self.failures + 1
        if self.failures == _FAILURES_IN_A_ROW:
            raise UserError(
                f"{self.failures} runs failed one after the other, the last with: {last_words(folder)} Correct it and "
                "try them again: python -m studies results --retry"
            )

    def _record(self, spec: RunSpec, recipe: Recipe, folder: Path, status: int, old: Record | None) -> None:
        outcome = FINISHED if status == 0 else FAILED
        reason = "" if status == 0 else f"exit status {status}: {last_words(folder)}"
        record = collect(spec, recipe, folder, command(spec, folder), outcome, reason, attempts(folder))
        if old is not None:
            record.used_by, record.earlier_failures = old.used_by, old.failures
            self.records = [(known, r) for known, r in self.records if r is not old]
        record.save(self.layout.record(spec.id))
        self.records.append((identity(recipe), record))
        self.progress.ended(record)


def resolve(spec: RunSpec, layout: Layout) -> Recipe:
    """The recipe that the run's command resolves to."""
    folder = layout.folder(spec.id)
    own = (f"name={folder.name}", f"run.directory={folder.parent}")
    overrides = (*own, *spec.common, *spec.overrides)
    return load_recipe(find_recipe(spec.recipe, spec.algorithm), spec.profile, overrides)


def _holds_another(folder: Path, recipe: Recipe) -> bool:
    """Whether an unrecorded run with other settings lies there: it is set aside, not gone on with."""
    return RunFolder(folder).info is not None and load_resolved(folder / "recipe.yaml") != recipe


@contextmanager
def _alone(runs: Path) -> Iterator[None]:
    """One runner at a time: two would take each other's folders for failures."""
    runs.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(runs)
    try:
        lock.acquire()
    except UserError:
        raise UserError(f"Another `python -m studies results` works on {runs}; wait for it, or stop it.") from None
    try:
        yield
    finally:
        lock.release()
