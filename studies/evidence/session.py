"""What `python -m studies results` does with the words that it is given: parts, single runs, and actions."""

from __future__ import annotations

from collections.abc import Sequence

from sdpo.errors import UserError
from studies.evidence import settings
from studies.evidence.attempt import command
from studies.evidence.evidence import Evidence
from studies.evidence.identity import identity, identity_of
from studies.evidence.index import Index
from studies.evidence.layout import Layout
from studies.evidence.progress import Progress
from studies.evidence.record import load_records
from studies.evidence.runner import Runner, RunsStopped, resolve
from studies.evidence.studies import CHOSEN, TUNING, RunSpec, Studies, specs

ACTIONS = ("settings", "list", "page")
MEASURED = {"forgetting": "ablations", "teacher": None}  # parts that train nothing → the part that they come after


class Session:
    def __init__(self, studies: Studies, layout: Layout, retry: bool = False) -> None:
        self.studies, self.layout, self.retry = studies, layout, retry
        self.progress = Progress()
        self.actions = list(ACTIONS)
        self.words = list(studies.parts)
        for part, after in MEASURED.items():
            self.words.insert(self.words.index(after) + 1 if after in self.words else len(self.words), part)

    def make(self, words: Sequence[str]) -> int:
        """Returns the exit status: 0, or 130 when the user stopped it."""
        runner: Runner | None = None
        try:
            for word in words:
                if word == "list":
                    self._list()
                elif word == "settings":
                    self._choose(TUNING)
                elif word in MEASURED:
                    self._measure(word)
                elif word != "page" and self._can_run(word, asked=len(words) < len(self.words)):
                    runner = runner or Runner(self.layout, self.progress, self.retry)
                    runner.run(self._specs(word))
                    self._choose_when_tuned(word)
            if list(words) != ["list"]:
                self._page()
            return 0
        except (RunsStopped, UserError) as ended:
            if runner is not None and runner.made:
                self._page()  # with what was made before
            if not isinstance(ended, RunsStopped):
                raise
            self.progress.message("Stopped. The same command goes on from there.")
            return 130
        finally:
            self.progress.close()

    def show_commands(self, words: Sequence[str]) -> None:
        """The command of every run, in order, and whether there is a record of it; nothing is started."""
        known = [same for record in load_records(self.layout.records) if (same := identity_of(record)) is not None]
        shown: dict[str, bool] = {}  # run → recorded
        for word in words:
            part = self.studies.parts.get(word.split("/")[0])
            if part is not None and part.base == CHOSEN and self._chosen(part.tuning) is None:
                print(f"# {word} takes the chosen settings, and none are chosen before the tuning is complete")
            elif part is not None:
                for spec in self._specs(word):
                    recorded = shown[spec.id] = identity(resolve(spec, self.layout)) in known
                    print(command(spec, self.layout.folder(spec.id)) + ("" if recorded else "  # not recorded yet"))
        print(f"# {sum(shown.values())} of {len(shown)} runs are recorded")

    def _can_run(self, word: str, asked: bool) -> bool:
        part = self.studies.parts[word.split("/")[0]]
        if not part.missing:
            return True
        text = f"{word} needs {part.missing}, which is not there."
        if asked:
            raise UserError(text)
        self.progress.message(f"Left out: {text}")
        return False

    def _specs(self, word: str) -> list[RunSpec]:
        name, _, run = word.partition("/")
        part = self.studies.parts[name]
        chosen = self._chosen(part.tuning)
        if part.base == CHOSEN and chosen is None:
            chosen = self._choose(part.tuning)
        declared = specs(self.studies, name, chosen)
        if not run:
            return declared
        found = [spec for spec in declared if spec.name == run]
        if not found:
            raise UserError(f"There is no run {word}. Runs of {name}: {', '.join(spec.name for spec in declared)}.")
        return found

    def _choose_when_tuned(self, word: str) -> None:
        """The settings are chosen as soon as the tuning is complete, before anything else is run."""
        if word in self.studies.tunings and not self.layout.settings_of(word).exists():
            self._choose(word)

    def _chosen(self, tuning: str) -> settings.Chosen | None:
        return settings.load_chosen(self.layout.settings_of(tuning))

    def _choose(self, tuning: str) -> settings.Chosen:
        out = self.layout.settings_of(tuning)
        chosen = settings.choose(specs(self.studies, tuning, None), Index.of(self.layout), out)
        for algorithm, values in chosen.items():
            self.progress.message(f"Chosen for {algorithm}: {' '.join(values) or 'the settings of the recipe'}")
        self.progress.message(f"Wrote {out}. Commit it before other worlds are run.")
        return chosen

    def _measure(self, word: str) -> None:
        from studies.evidence.measures import parts

        getattr(parts, word)(self._evidence(), self.layout, self.progress.message)

    def _page(self) -> None:
        from studies.evidence.page import write_page

        write_page(self._evidence(), self.layout)
        self.progress.message(f"Wrote {self.layout.page}")

    def _evidence(self) -> Evidence:
        return Evidence.load(self.studies, self.layout)

    def _list(self) -> None:
        """What is declared and how it stands."""
        evidence = self._evidence()
        for name, part in self.studies.parts.items():
            self.progress.message(f"{name}: {part.question}")
            if part.missing:
                self.progress.message(f"  needs {part.missing}")
            for spec in evidence.specs(name):
                record = evidence.index.get(spec.id)
                state = "not run yet" if record is None else record.status
                shared = f" ({record.run})" if record is not None and record.run != spec.id else ""
                self.progress.message(f"  {spec.name}: {state}{shared}")
