"""What belongs together: runs that differ in the seed alone, and groups of them that can be compared.

Recipes and checksums decide, not names.  A group is one configuration; groups are compared where model, data,
evaluation and budget are the same, and kept apart where they are not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdpo.config.registry import DEFAULT_ENVIRONMENT, ENVIRONMENTS, order, resolve
from sdpo.errors import UserError
from sdpo.report.runs import Run

_DATA = ("data.", "environment.", "sandbox.cpu_time_s", "sandbox.memory_mb")  # what is asked, and how it is graded
_EVALUATED = ("temperature", "top_p", "thinking")
_MODEL = ("model.path", "model.thinking")
_COMMIT = "model/commit"  # in inputs.json: of a hub model, whose content the path and this name
CODE = "code/"  # in inputs.json: files of the user's own


@dataclass(frozen=True)
class Facet:
    """One part of what must be the same: `key` decides, `options` say it."""

    key: str
    options: Mapping[str, Any]


def setup(run: Run) -> dict[str, Facet]:
    """What must be the same for two runs to be compared."""
    options = run.configuration
    model = {key: options.get(key) for key in _MODEL}
    files = {k: v for k, v in _recorded(run, "model/").items() if k != _COMMIT}
    where = {_COMMIT: run.inputs.get(_COMMIT), "model.path": files or model["model.path"]}
    data = {k: v for k, v in options.items() if k.startswith(_DATA) and k != "environment.turns"}
    tasks = {} if _drawn_by_seed(options) else _recorded(run, "tasks/")
    decides = {k: v for k, v in data.items() if not (tasks and k.startswith("data."))}
    evaluation = {f"evaluation.{key}": options.get(f"evaluation.{key}") for key in _EVALUATED}
    for key, otherwise in (("max_response_tokens", "rollout.max_response_tokens"), ("turns", "environment.turns")):
        evaluation[f"evaluation.{key}"] = options.get(f"evaluation.{key}") or options.get(otherwise)
    factors = [options.get(key) for key in ("run.steps", "run.questions", "rollout.responses")]
    samples = None if None in factors else factors[0] * factors[1] * factors[2]
    return {
        "profile": _facet({"profile": options.get("profile")}),
        "model": _facet(model, {**model, **where}),
        "data": _facet(data, {**decides, **tasks}),
        "evaluation": _facet(evaluation),
        "budget": _facet({"budget (generations)": samples}),
    }


def _facet(options: Mapping[str, Any], decides: Any = None) -> Facet:
    return Facet(json.dumps(options if decides is None else decides, sort_keys=True, default=str), options)


def _recorded(run: Run, prefix: str) -> dict[str, str]:
    return {key: value for key, value in run.inputs.items() if key.startswith(prefix)}


def _drawn_by_seed(options: Mapping[str, Any]) -> bool:
    """Whether runs of one configuration have other tasks for each seed, so that their checksums say nothing."""
    name = str(options.get("environment.kind", DEFAULT_ENVIRONMENT))
    try:
        by_seed = resolve(ENVIRONMENTS, name, "environment.kind").draws_by_seed
    except ValueError:  # one that is gone
        by_seed = False
    return by_seed or options.get("data.problem_split") == "hash"


def said(value: Any) -> str:
    """A setting as a command gives it."""
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def differences(mine: Run, other: Run) -> list[str]:
    """How the setup of `mine` differs from that of `other`."""
    found = []
    theirs = setup(other)
    for name, facet in setup(mine).items():
        if facet.key != theirs[name].key:
            pairs = {k: (v, theirs[name].options.get(k)) for k, v in facet.options.items()}
            named = [f"{k} {said(a)} instead of {said(b)}" for k, (a, b) in pairs.items() if a != b]
            found += named or [f"{name}: other content of the same name (inputs.json)"]
    return found


@dataclass(frozen=True)
class Group:
    """Runs that differ in the seed alone; `runs` are shown."""

    runs: list[Run]

    @property
    def first(self) -> Run:
        return self.runs[0]

    @property
    def options(self) -> dict[str, Any]:
        """All that may tell it from another group of the same setup."""
        own = {k: v for k, v in self.first.configuration.items() if not k.startswith((*_MODEL, "data."))}
        forked = Path(self.first.info.forked_from).name
        return {**own, **_recorded(self.first, CODE), **({"forked from": forked} if forked else {})}


def group(runs: Sequence[Run], by_name: Sequence[Path]) -> tuple[list[Group], list[str]]:
    """The groups of runs that have rows, and a note on each run that gave way to another of its group.

    Of each seed the newest run is shown; one that did not come to its end only where none of its group did.  Those in
    `by_name` are shown in any case.
    """
    members: dict[str, list[Run]] = {}
    for run in runs:
        members.setdefault(_key(run), []).append(run)
    groups, notes = [], []
    for same in members.values():
        done = [run for run in same if run.finished]
        newest: dict[int, Run] = {}
        for run in sorted(done or same, key=lambda r: r.info.created):
            newest[run.info.seed] = run
        named = [run for run in same if run.path in by_name]
        shown = named + [r for s, r in newest.items() if s not in {n.info.seed for n in named}]
        seeds = [run.info.seed for run in shown]
        if twice := [seed for seed in seeds if seeds.count(seed) > 1]:
            both = " and ".join(run.name for run in shown if run.info.seed == twice[0])
            raise UserError(
                f"{both} have the same configuration and seed {twice[0]}. Compare one of them, or give each a label "
                "(name:label)."
            )
        notes += [_left_out(run, shown, done) for run in same if run not in shown]
        groups.append(Group(sorted(shown, key=lambda r: r.info.seed)))
    algorithms = order(one.first.info.algorithm for one in groups)
    return sorted(groups, key=lambda one: algorithms.index(one.first.info.algorithm)), notes


def _left_out(run: Run, shown: Sequence[Run], done: Sequence[Run]) -> str:
    if run.finished or not done:
        other = next(one for one in shown if one.info.seed == run.info.seed)
        why = f"{other.name} is newer" if other.info.created > run.info.created else f"{other.name} was asked for"
        return f"{run.name} is left out: {why}, of the same configuration and seed."
    return f"{run.name} ({run.info.status}) is left out: {done[-1].name}, of the same configuration, is finished."


def _key(run: Run) -> str:
    return json.dumps([_same(run), Group([run]).options, run.label], sort_keys=True, default=str)


def _same(run: Run) -> list[str]:
    return [facet.key for facet in setup(run).values()]


def comparable(groups: Sequence[Group]) -> list[list[Group]]:
    """Groups of one setup together; first the set that a person would look at: two that are finished, the most
    generations, the newest."""
    sets: dict[str, list[Group]] = {}
    for one in groups:
        sets.setdefault(str(_same(one.first)), []).append(one)

    def weight(members: list[Group]) -> tuple[bool, bool, int, str]:
        finished = sum(any(run.finished for run in one.runs) for one in members)
        runs = [run for one in members for run in one.runs]
        return finished > 1, finished > 0, sum(r.generations for r in runs), max(r.info.created for r in runs)

    return sorted(sets.values(), key=weight, reverse=True)
