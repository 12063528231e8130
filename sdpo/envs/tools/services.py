"""Conversations with the leaderboard's simulated services: a file system, a vehicle, trading, tickets, travel, ….

Runs in a worker process: a conversation is replayed from its beginning each time, so that nothing has to be kept
between its turns.  What a policy writes is parsed, never evaluated: the name has to be that of a method of a service,
arguments have to be literals.  Whether the services end up in the right state is the leaderboard's own check.
"""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sdpo.envs.tools.calls import Call, Form, Unreadable, read_calls

MAX_STEPS = 20  # answers with calls to one message of the user; the leaderboard's own limit
_FORBIDDEN = ("kill", "exit", "quit", "remove", "unlink", "popen", "Popen", "run")  # the leaderboard's own list


@dataclass(frozen=True)
class Replay:
    """Where a conversation stands after its last answer."""

    results: tuple[str, ...] = ()  # of the last answer's calls
    message: int | None = None  # the user's next message by its index; None: the user says nothing now
    over: bool = False
    problem: str | None = None  # what is wrong with the messages that are done; None: nothing is
    done: int = 0  # messages of the user that were answered as wanted


@dataclass
class _Side:
    """The services as the policy, or the reference, has left them."""

    services: Mapping[str, Any]
    methods: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.methods = {
            name: method
            for service in self.services.values()
            for name, method in inspect.getmembers(service, inspect.ismethod)
            if not name.startswith("_")
        }

    def call(self, call: Call, *positional: Any) -> str:
        """What the service says, as the leaderboard writes it."""
        try:
            if call.name in _FORBIDDEN:
                raise PermissionError(f"Function call {call.name} is not allowed.")
            if call.name not in self.methods:
                raise NameError(f"name '{call.name}' is not defined")
            result = self.methods[call.name](*positional, **call.arguments)
            if isinstance(result, dict):
                try:
                    return json.dumps(result)
                except (TypeError, ValueError):
                    return str(result)
            return result if isinstance(result, str) else str(result)
        except Exception as error:
            return f"Error during execution: {error}"


def judge(entry: Mapping[str, Any], reference: Sequence[Sequence[str]], answers: Sequence[str], form: Form) -> Any:
    """`replay`, as JSON."""
    return asdict(replay(entry, reference, answers, form))


def replay(
    entry: Mapping[str, Any], reference: Sequence[Sequence[str]], answers: Sequence[str], form: Form = "python"
) -> Replay:
    """A row of the leaderboard (`initial_config`, `involved_classes`, `id`) after these answers, of which one is there.

    `reference` are the calls that each message of the user asks for, as the leaderboard writes them.
    """
    from bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker import response_checker, state_checker

    policy, wanted = _Side(_services(entry)), _Side(_services(entry))
    heard: list[str] = []  # all that the services told the policy
    turn = steps = 0
    now = Replay()
    for answer in answers:
        try:
            calls = read_calls(answer, form)
        except Unreadable:
            calls = []
        if calls:
            steps += 1
            results = tuple(policy.call(call) for call in calls)
            heard += results
            now = Replay(results, done=turn)
            if steps > MAX_STEPS:
                return Replay(results, None, True, f"You made calls {steps} times without an end.", turn)
            continue
        goals = [wanted.call(*_reference_call(goal, wanted)) for goal in reference[turn]]
        problem = None
        if goals and not steps:
            problem = "You made no call that could be read, but the request needs some."
        elif goals and not (found := state_checker(dict(policy.services), dict(wanted.services)))["valid"]:
            problem = _wrong_state(found, policy)
        elif goals and not response_checker(heard, goals, turn)["valid"]:
            problem = "Something that the user asked to find out was never looked up."
        if problem:
            return Replay((), None, True, problem, turn)
        turn, steps = turn + 1, 0
        now = Replay((), turn, turn == len(reference), None, turn)
    return now if not now.over else Replay((), None, True, None, turn)


def _services(entry: Mapping[str, Any]) -> dict[str, Any]:
    from bfcl_eval.constants.executable_backend_config import CLASS_FILE_PATH_MAPPING, STATELESS_CLASSES

    made = {}
    for name in entry["involved_classes"]:
        service = getattr(importlib.import_module(CLASS_FILE_PATH_MAPPING[name]), name)()
        if name not in STATELESS_CLASSES:
            initial = copy.deepcopy(entry.get("initial_config", {}).get(name, {}))
            service._load_scenario(initial, long_context="long_context" in entry["id"])
        made[name] = service
    return made


def _reference_call(text: str, side: _Side) -> tuple[Any, ...]:
    """A call of the reference, and its arguments without a name."""
    node = ast.parse(text, mode="eval").body
    assert isinstance(node, ast.Call)
    [call] = read_calls(f"[{text}]", "python")
    return (call, *(ast.literal_eval(argument) for argument in node.args))


def reference_answer(texts: Sequence[str], services: Sequence[str], form: Form = "python") -> list[Call]:
    """Calls of a reference with a name for every argument, as policies have to give them."""
    from bfcl_eval.constants.executable_backend_config import CLASS_FILE_PATH_MAPPING

    kinds = [getattr(importlib.import_module(CLASS_FILE_PATH_MAPPING[name]), name) for name in services]
    made = []
    for text in texts:
        node = ast.parse(text, mode="eval").body
        assert isinstance(node, ast.Call)
        [call] = read_calls(f"[{text}]", "python")
        method = next(getattr(kind, call.name) for kind in kinds if hasattr(kind, call.name))
        names = list(inspect.signature(method).parameters)[1:]
        given = {name: ast.literal_eval(value) for name, value in zip(names, node.args, strict=False)}
        made.append(Call(call.name, given | dict(call.arguments)))
    return made


def _wrong_state(found: Mapping[str, Any], policy: _Side) -> str:
    """Which service differs, and in what; never how it should be."""
    name = next((name for name in policy.services if f" {name} " in found["error_message"]), "a service")
    parts = ", ".join(sorted(found["details"]["differences"]))
    return f"After your calls {name} is not in the state that the request asks for (it differs in: {parts})."
