"""Programs and tests per second of the sandbox beside plain ways of running Python programs, in one run.

    make bench BENCH=sandbox [ARGS="--repeats 7 --output result.json"]
    make bench BENCH=sandbox ARGS="--soak 100000 [--seconds 600]"

Everything but the soak runs on one core (the benchmark pins itself), so that the ratios mean something; absolute
numbers do not carry over to other machines.  `subprocess` starts `python -I -S`, one after the other, with the prelude
that every program may rely on; `pool` runs exec() in a concurrent.futures process pool, which isolates nothing;
`fork_server` forks and hardens a child when a program comes (see fork_server.py).  `burst`: as many programs as
children are ready.  `sustained`: no child is ready.  `cold_N`: the first N programs, from the start of the server to
the last verdict, handed over at once; `one_by_one_cold_N`: each when the one before has its verdict, as the plain fork
server has it.  `numpy`: programs that import it, for which the sandbox starts a second fork server when it has judged
the first one.  `times_fork_server` compares with the plain one at the same task.  All measurements are taken in turn,
several times; the figures are medians.  The soak judges a mix of honest and hostile programs while children and servers
are killed at random.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import gc
import importlib.util
import io
import json
import os
import platform
import random
import resource
import runpy
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from sandbox import Job, Limits, Sandbox, TestCase, Verdict  # noqa: E402
from sandbox.compare import stdin_equal  # noqa: E402
from sandbox.prelude import PRELUDE  # noqa: E402

PROGRAM = """import sys
def solve(n, xs):
    best = 0
    for i, x in enumerate(xs):
        if x > best:
            best = x
    return best + n
n = int(sys.stdin.readline())
xs = list(map(int, sys.stdin.readline().split()))
print(solve(n, xs))
"""
NUMPY_PROGRAM = """import numpy as np
n = int(input())
print(int(np.array(input().split(), dtype=np.int64).max()) + n)
"""
COLD = (1, 8, 64)
TESTS = [TestCase(f"{n}\n1 2 3 {n + 5}\n", str(2 * n + 5)) for n in range(20)]
LIMITS = Limits(cpu_time_s=10, wall_time_s=300)
HONEST = {
    PROGRAM: {"accepted"},
    "import sys\n" + PROGRAM: {"accepted"},
    "print(": {"compile error"},
    "1/0": {"runtime error"},
    "print(1)": {"wrong answer"},
    "import os; os._exit(0)": {"wrong answer"},
    "x = [0] * 10**12": {"memory limit"},
    "import ctypes; ctypes.string_at(0)": {"runtime error"},
}
if importlib.util.find_spec("numpy") is not None:
    HONEST[NUMPY_PROGRAM] = {"accepted"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=int, default=200, help="programs in a burst")
    parser.add_argument("--repeats", type=int, default=5, help="rounds of measurements")
    parser.add_argument(
        "--soak",
        type=int,
        default=0,
        help="programs of the soak (100000 for the full one), on all cores, and only that",
    )
    parser.add_argument("--seconds", type=float, help="end the soak after this time")
    parser.add_argument("--output", type=Path, help="write the result as JSON")
    parser.add_argument("--small", action="store_true", help="show only that it runs")
    options = parser.parse_args()
    if options.small:
        options.programs, options.repeats = 20, 1
    result = {"machine": _machine(), "load_before": os.getloadavg()}
    if options.soak:
        result["soak"] = soak(options.soak, options.seconds)
    else:
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[-1]})
        result |= {"cores_used": 1, "programs": options.programs} | measure(options.programs, options.repeats)
    result["load_after"] = os.getloadavg()
    text = json.dumps(result, indent=1)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


def measure(programs: int, repeats: int) -> dict:
    rounds = []
    for number in range(repeats):
        print(f"\rround {number + 1} of {repeats}", end="", file=sys.stderr, flush=True)
        rounds.append(_round(programs))
    print(file=sys.stderr)
    rates = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    ratios = {
        name: statistics.median(each[name] / each[_yardstick(name)] for each in rounds)
        for name in rates
        if name != _yardstick(name)
    }
    with Sandbox(workers=1, pool=1) as sandbox:
        level = sandbox.report["level"]
    return {
        "isolation": level,
        "per_second": {name: round(rate, 1) for name, rate in rates.items()},
        "times_subprocess": {name: round(ratio, 1) for name, ratio in ratios.items()},
        "times_fork_server": _times_fork_server(rounds),
        "rounds": [{name: round(rate, 1) for name, rate in each.items()} for each in rounds],
        "time_limits": time_limits(),
    }


def _times_fork_server(rounds: list[dict[str, float]]) -> dict[str, list[float]]:
    """The sandbox beside the plain fork server at the same task: median, lowest and highest of the rounds."""
    pairs = {"sustained_programs": "fork_server_programs"}
    pairs |= {name: "fork_server_numpy" for name in ("numpy_first", "numpy_first_few", "numpy")}
    pairs |= {f"{way}_{count}": f"fork_server_cold_{count}" for count in COLD for way in ("cold", "one_by_one_cold")}
    told = {}
    for name, other in pairs.items():
        ratios = [each[name] / each[other] for each in rounds if name in each]
        if ratios:
            told[name] = [round(ratio, 2) for ratio in (statistics.median(ratios), min(ratios), max(ratios))]
    return told


def _yardstick(name: str) -> str:
    return "subprocess_tests" if name.endswith("_tests") else "subprocess_programs"


def _round(programs: int) -> dict[str, float]:
    rates: dict[str, float] = {}
    few = max(programs // 10, 10)
    rates["subprocess_programs"] = _rate(few, lambda: [_by_subprocess(PROGRAM, TESTS[0]) for _ in range(few)])
    rates["subprocess_tests"] = _rate(few, lambda: [_by_subprocess(PROGRAM, TESTS[n % 20]) for n in range(few)])
    with concurrent.futures.ProcessPoolExecutor(1) as pool:
        pool.submit(_by_exec, PROGRAM, TESTS[:1]).result()
        rates["pool_programs"] = _rate(programs, lambda: list(pool.map(_by_exec, *_repeat(programs, TESTS[:1]))))
        rates["pool_tests"] = 20 * _rate(programs, lambda: list(pool.map(_by_exec, *_repeat(programs, TESTS))))
    with concurrent.futures.ProcessPoolExecutor(1, max_tasks_per_child=1) as pool:
        rates["fresh_pool_programs"] = _rate(few, lambda: list(pool.map(_by_exec, *_repeat(few, TESTS[:1]))))
    rates["fork_server_programs"] = _by_fork_server(PROGRAM, programs)
    with Sandbox(workers=1, pool=1) as sandbox:  # at once, before any child is ready
        rates["sustained_programs"] = _rate(
            2 * programs, lambda: _judge(sandbox, [Job(PROGRAM, TESTS[:1], LIMITS)] * 2 * programs)
        )
    with Sandbox(workers=1, pool=programs) as sandbox:
        began = time.perf_counter()
        wait_for_pool(sandbox, programs)
        rates["refill"] = programs / (time.perf_counter() - began)
        rates["burst_programs"] = _rate(programs, lambda: _judge(sandbox, [Job(PROGRAM, TESTS[:1], LIMITS)] * programs))
        wait_for_pool(sandbox, programs)
        rates["burst_tests"] = 20 * _rate(programs, lambda: _judge(sandbox, [Job(PROGRAM, TESTS, LIMITS)] * programs))
    for count in [count for count in COLD if count <= programs]:
        rates |= _cold(count)
    if importlib.util.find_spec("numpy") is not None:
        rates |= _numpy(programs)
    return rates


def _cold(count: int) -> dict[str, float]:
    """The first programs, from the start of a server on; the better of two, since a start is short."""
    both = [_cold_once(count) for _ in range(2)]
    return {name: max(each[name] for each in both) for name in both[0]}


def _cold_once(count: int) -> dict[str, float]:
    job = Job(PROGRAM, TESTS[:1], LIMITS)

    def at_once() -> None:
        with Sandbox(workers=1) as sandbox:
            _judge(sandbox, [job] * count)
            over.append(time.perf_counter())

    def one_by_one() -> None:
        with Sandbox(workers=1) as sandbox:
            for _ in range(count):
                _judge(sandbox, [job])
            over.append(time.perf_counter())

    def plain() -> None:
        with _fork_server() as judge:
            for _ in range(count):
                judge(PROGRAM)
            over.append(time.perf_counter())

    rates = {}
    for name, work in (("fork_server_cold", plain), ("cold", at_once), ("one_by_one_cold", one_by_one)):
        over: list[float] = []  # without the end of the server
        began = time.perf_counter()
        work()
        rates[f"{name}_{count}"] = count / (over[0] - began)
    return rates


def _numpy(programs: int) -> dict[str, float]:
    """Programs that import numpy: the first ones, and the others."""
    few = max(programs // 10, 10)
    job = Job(NUMPY_PROGRAM, TESTS[:1], LIMITS)
    rates = {"fork_server_numpy": _by_fork_server(NUMPY_PROGRAM, few)}
    with Sandbox(workers=1, pool=1) as sandbox:
        rates["numpy_first"] = _rate(1, lambda: _judge(sandbox, [job]))
        rates["numpy_first_few"] = _rate(
            few, lambda: _judge(sandbox, [job] * few)
        )  # the second server starts meanwhile
        while not sandbox.warm:
            time.sleep(0.01)
        rates["numpy"] = _rate(programs, lambda: _judge(sandbox, [job] * programs))
    return rates


def time_limits(programs: int = 20) -> dict:
    """CPU seconds that endless loops cost beyond their limits, with one program in ten of that kind."""
    limit = 1.0
    looping = programs // 10
    with Sandbox(workers=1) as sandbox:
        jobs = [
            Job("while True: pass" if n < looping else PROGRAM, TESTS[:5], Limits(limit, 60)) for n in range(programs)
        ]
        judgements = sandbox.judge_many(jobs)
    spent = [sum(test.cpu_time_s for test in j.tests) for j in judgements if j.verdict is Verdict.TIME_LIMIT]
    assert len(spent) == looping
    return {"limit_s": limit, "looping": looping, "cpu_s_each": [round(s, 3) for s in spent]}


def soak(programs: int, seconds: float | None = None, kill_every_s: float = 1.0) -> dict:
    """Judge many programs, one in twenty hostile, while children and servers are killed at random.

    programs: how many, or fewer where `seconds` are over before.  Every verdict is compared with the one that the
    program has on a quiet machine.  Returns what was wrong, what was killed, and what grew meanwhile.
    """
    hostile = _hostile_jobs()
    honest = [(Job(code, TESTS[:2], LIMITS), verdicts) for code, verdicts in HONEST.items()]
    rng = random.Random(0)
    wrong: Counter[str] = Counter()
    marks, done, batch = [], 0, 400
    with Sandbox() as sandbox:
        began = time.perf_counter()
        with _killer(sandbox, kill_every_s) as killed:
            while done < programs and (seconds is None or time.perf_counter() - began < seconds):
                chosen = [
                    rng.choice(hostile) if rng.random() < 0.05 else rng.choice(honest)
                    for _ in range(min(batch, programs - done))
                ]
                for (job, verdicts), judgement in zip(
                    chosen, sandbox.judge_many([job for job, _ in chosen]), strict=True
                ):
                    if judgement.verdict.value not in verdicts:
                        wrong[f"{judgement.verdict.value} instead of {sorted(verdicts)}: {job.code[-200:]}"] += 1
                done += len(chosen)
                marks.append(_held())
                print(f"\r{done}/{programs}, {sum(wrong.values())} wrong", end="", file=sys.stderr, flush=True)
        took = time.perf_counter() - began
        counts = sandbox.counts
    print(file=sys.stderr)
    steady = marks[min(1, len(marks) - 1)]  # by then everything that is allocated once has been
    return {
        "programs": done,
        "per_second": round(done / took, 1),
        "hostile": 0.05,
        "killed": dict(killed),
        "wrong": dict(wrong),
        "sandbox_errors": counts["sandbox_errors"],
        "descriptors_first_last": [steady[0], marks[-1][0]],
        "resident_kib_first_last": [steady[1], marks[-1][1]],
        "threads_first_last": [steady[2], marks[-1][2]],
    }


def _hostile_jobs() -> list[tuple[Job, set[str]]]:
    """The attacks among the tests that take no time limit to be over, each with the verdicts that it may get."""
    programs = runpy.run_path(str(ROOT / "tests" / "sandbox" / "hostile_programs.py"))
    names = f"VICTIM, JUDGE, ABSTRACT, SECRET = {os.getppid()}, {os.getpid()}, 'sandbox-soak', '/etc/hostname'\n"
    refused = {verdict.value for verdict in Verdict} - {"accepted", "sandbox error", "no code", "compile error"}
    limits = Limits(cpu_time_s=1, wall_time_s=3, memory_mb=256, output_kb=256)
    patient = Limits(cpu_time_s=30, wall_time_s=100, memory_mb=256, output_kb=256)
    jobs = []
    for kind in ("REFUSED", "OUTWARD", "READING"):
        for name, code in programs[kind].items():
            if name != "ring_without_a_report":
                jobs.append((Job(programs["ATTEMPT"] + names + code, [TestCase("", "STOLEN")], limits), refused))
    for code, verdicts in programs["EXHAUSTING"].values():
        if "time limit" not in verdicts:
            jobs.append((Job(code, [TestCase("", "never")], patient), verdicts))
    for code in programs["DISHONEST_VALUES"].values():
        jobs.append((Job(code, [TestCase("1", "42", "functional", "f")], limits), refused))
    return jobs


@contextlib.contextmanager
def _killer(sandbox: Sandbox, every_s: float) -> Iterator[Counter[str]]:
    """SIGKILL for a process of the sandbox every so often: nine times in ten a child, else the fork server."""
    killed: Counter[str] = Counter()
    over = threading.Event()

    def kill() -> None:
        rng = random.Random(1)
        while not over.wait(rng.uniform(0, 2 * every_s)):
            engine = sandbox._engine
            children = [child for child in list(engine._children.values()) if child.pidfd >= 0]
            if rng.random() < 0.1:
                server = rng.choice(engine._supplies).server
                if server is not None:
                    server.process.kill()
                    killed["servers"] += 1
            elif children:
                rng.choice(children).kill()
                killed["children"] += 1

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def _held() -> tuple[int, int, int]:
    """Descriptors, resident KiB and threads of this process."""
    gc.collect()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * (resource.getpagesize() // 1024)
    return len(os.listdir("/proc/self/fd")), resident, threading.active_count()


def wait_for_pool(sandbox: Sandbox, count: int) -> None:
    while sandbox.idle < count:
        time.sleep(0.01)


def _judge(sandbox: Sandbox, jobs: list[Job]) -> None:
    assert all(judgement.passed for judgement in sandbox.judge_many(jobs))


def _rate(count: int, work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return count / (time.perf_counter() - began)


def _by_subprocess(code: str, test: TestCase) -> None:
    command = [sys.executable, "-I", "-S", "-c", PRELUDE + "\n" + code]
    done = subprocess.run(command, input=test.input, capture_output=True, text=True, check=True)
    assert stdin_equal(done.stdout, test.output)


@contextlib.contextmanager
def _fork_server() -> Iterator[Callable[[str], None]]:
    """A plain fork server; judges a program by the first test."""
    command = [sys.executable, "-I", "-S", str(ROOT / "benchmarks" / "fork_server.py")]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as server:

        def judge(code: str) -> None:
            server.stdin.write(json.dumps({"code": code, "input": TESTS[0].input}) + "\n")
            server.stdin.flush()
            assert stdin_equal(json.loads(server.stdout.readline()), TESTS[0].output)

        yield judge
        server.stdin.close()


def _by_fork_server(code: str, programs: int) -> float:
    with _fork_server() as judge:
        judge(code)
        return _rate(programs, lambda: [judge(code) for _ in range(programs)])


def _by_exec(code: str, tests: list[TestCase]) -> None:
    compiled = compile(code, "<program>", "exec")
    for test in tests:
        sys.stdin = io.StringIO(test.input)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compiled, {"__name__": "__main__"})
        assert stdin_equal(printed.getvalue(), test.output)


def _repeat(count: int, tests: list[TestCase]) -> tuple[list, list]:
    return [PROGRAM] * count, [tests] * count


def _machine() -> dict:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    return {
        "processor": platform.machine(),
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
        "commit": commit.strip(),
    }


if __name__ == "__main__":
    main()
