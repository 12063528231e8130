"""What `sdpo inspect` shows: responses with their credit, as text, and in a run's report."""

from __future__ import annotations

import gzip
import io
import json
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from sdpo.cli import main
from sdpo.losses.advantages import group_advantages
from sdpo.report import run_report
from sdpo.report.blocks import block
from sdpo.report.inspect_text import print_response
from sdpo.report.picks import picked
from sdpo.report.responses import normalizes_by_std, step_responses
from sdpo.tracking.rollouts import read_rollouts, rollouts_path
from sdpo.tracking.tokens import TOKEN_SCHEMA, TokenTexts
from tests.byte_tokenizer import byte_tokenizer
from tests.helpers.credit import ATTACK, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "made", steps=4, groups=3, responses=4, kept=2, tasks=5)


def without_tokens(run, target):
    """The run as a version wrote it that recorded no tokens."""
    old = make_run(target, steps=2)
    for step in (1, 2):
        path = rollouts_path(old / "rollouts", step)
        pq.write_table(pq.read_table(path).drop_columns(TOKEN_SCHEMA.names), path)
    return old


def test_what_is_read_is_what_the_tables_hold(run):
    rows, found = read_rollouts(run / "rollouts", 2), step_responses(run, 2)
    assert len(rows) == len(found) == 12 and [r.group for r in found] == [0] * 4 + [1] * 4 + [2] * 4
    assert [r.tokens is None for r in found] == [row["token_ids"] is None for row in rows] == [False] * 8 + [True] * 4
    for row, r in zip(rows[:8], found[:8], strict=True):
        assert r.tokens.texts == row["tokens"] and r.tokens.top_texts == row["top_tokens"]
        for name in ("sampler_log_probs", "log_probs", "teacher_log_probs", "entropy", "top_teacher_log_probs"):
            values = getattr(r.tokens, name)
            assert row[name] == (None if values is None else values.tolist())
        if row["teacher_log_probs"] is None:
            assert r.tokens.gains is r.tokens.disagreement is None
        else:
            assert r.tokens.disagreement == max(map(abs, r.tokens.gains.tolist()))


def test_the_advantage_beside_them_is_grpos(run):
    for by_std in (False, True):
        for group in range(3):
            found = [r for r in step_responses(run, 1, by_std) if r.group == group]
            graded = [r for r in found if r.outcome != "ungraded"]
            wanted = group_advantages(np.array([r.row["reward"] for r in graded]), normalize_by_std=by_std)
            assert [r.advantage for r in graded] == wanted.tolist()
            assert [r.advantage for r in found if r.outcome == "ungraded"] == [None]
    assert normalizes_by_std({"policy_gradient": {"normalize_by_std": True}}) and not normalizes_by_std({})


def test_of_several_turns_the_rollouts_last_reward_counts(tmp_path):
    rows = [
        {"problem_id": "p", "sample": i, "turn": turn, "reward": reward, "response": "x", "response_tokens": 1}
        for i, rewards in enumerate([(0.0, 1.0), (0.0,), (0.5, 0.0)])
        for turn, reward in enumerate(rewards, start=1)
    ]
    run = make_run(tmp_path / "run", steps=1)
    table = pa.Table.from_pylist(rows, schema=pq.read_schema(rollouts_path(run / "rollouts", 1)))
    pq.write_table(table, rollouts_path(run / "rollouts", 1))
    found = step_responses(run, 1)
    assert [round(r.advantage, 6) for r in found] == [0.666667, 0.666667, -0.333333, -0.333333, -0.333333]
    assert {r.group for r in found} == {0}


def test_a_task_that_is_drawn_twice_in_a_step_is_two_groups(tmp_path):
    found = step_responses(make_run(tmp_path / "run", steps=1, groups=2, tasks=1), 1)
    assert [(r.task, r.group) for r in found] == [("task/0", 0)] * 4 + [("task/0", 1)] * 4


def test_a_block_holds_the_numbers_bit_for_bit(run):
    responses = step_responses(run, 3)
    data = gzip.decompress(block(responses))
    [length] = struct.unpack_from("<I", data)
    header, words = json.loads(data[4 : 4 + length]), data[4 + length :]
    assert len(words) % 4 == 0 and len(header["responses"]) == len(responses)
    for entry, r in zip(header["responses"], responses, strict=True):
        assert header["texts"][entry["prompt"]] == r.row["prompt"]
        if r.tokens is None:
            assert entry["tokens"] is None
            continue
        place, n = entry["tokens"], len(r.tokens.texts)
        assert [header["tokens"][i] for i in np.frombuffer(words, "<i4", n, 4 * place["texts"])] == r.tokens.texts
        for name in ("log_probs", "entropy", "teacher_log_probs", "top_log_probs", "top_teacher_log_probs"):
            values = getattr(r.tokens, name)
            if values is None:
                assert place[name] is None
            else:
                assert np.frombuffer(words, "<f4", values.size, 4 * place[name]).tobytes() == values.tobytes()


def test_the_three_of_a_report_follow_the_rule(run):
    everything = [r for step in (1, 2, 3, 4) for r in step_responses(run, step)]
    failed, solved, median = picked(everything)
    by_size = sorted((r for r in everything if r.tokens and r.tokens.gains is not None),
                     key=lambda r: r.tokens.disagreement)  # fmt: skip
    assert failed.outcome == "failed" and solved.outcome == "solved" and median is by_size[len(by_size) // 2]
    for one in (failed, solved):
        assert one.tokens.disagreement == max(r.tokens.disagreement for r in by_size if r.outcome == one.outcome)
    assert picked([]) == [] and picked(by_size[:1]) == by_size[:1]


def test_a_report_shows_three_responses_with_the_credit_of_their_tokens(run, tmp_path):
    html = run_report(run).read_text()
    section = html.split('id="credit"')[1].split("<h2")[0]
    assert section.count('<pre class="tokens">') == 3
    shown = picked(r for step in (1, 3, 4) for r in step_responses(run, step))
    for r in shown:
        assert f"Step {r.step}, {r.task}, sample {r.row['sample']}:" in section
        for text, gain in zip(r.tokens.texts, r.tokens.gains, strict=True):
            if text.isalpha():
                assert f'title="{gain:+.3f}">{text}</span>' in section
    assert "&lt;/script&gt;" in section and ATTACK not in html
    assert 'id="credit"' not in run_report(without_tokens(run, tmp_path / "old")).read_text()


def shown(response, **terminal) -> str:
    output = io.StringIO()
    print_response(response, Console(file=output, width=100, **terminal))
    return output.getvalue()


def test_a_terminal_shows_colours_or_numbers(run):
    [first, *_] = picked(step_responses(run, 1))
    plain = shown(first)
    assert f"Step 1, {first.task}, sample {first.row['sample']}: wrong, reward 0." in plain and "\x1b" not in plain
    lines = [line.split() for line in plain.splitlines()]
    for text, gain, own in zip(first.tokens.texts, first.tokens.gains, first.tokens.log_probs, strict=True):
        if text.isalpha():
            assert [repr(text), f"{gain:+.3f}", f"{own:.3f}"] in [line[:3] for line in lines]
    coloured = shown(first, force_terminal=True, color_system="256")
    strongest = first.tokens.gains[np.abs(first.tokens.gains).argmax()]
    assert f"48;5;{208 if strongest < 0 else 39}m" in coloured and f"{strongest:+.3f}" in coloured


def test_a_terminal_says_what_is_not_there(run):
    responses = step_responses(run, 1)
    assert "No teacher re-scored it" in shown(responses[1])
    assert "tracking.tokens_mb" in shown(responses[-1])


def test_the_command_prints_the_response_that_it_is_asked_for(run, capsys):
    wanted = step_responses(run, 2)[6]
    assert main(["inspect", str(run), "--text", "--step", "2", "--task", wanted.task, "--sample", "2"]) == 0
    assert f"Step 2, {wanted.task}, sample 2:" in capsys.readouterr().out
    assert main(["inspect", str(run), "--text"]) == 0
    assert "Step 4, " in capsys.readouterr().out  # the last one


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--text", "--step", "9"], "no table of step 9. It has: 1, 2, 3, 4."),
        (["--text", "--step", "1", "--task", "none"], "Step 1 has no task 'none'. It has: task/3, task/4, task/0."),
        (["--text", "--step", "1", "--task", "task/3", "--sample", "7"], "no sample 7 there. There are: 0, 1, 2, 3."),
        (["--text", "--step", "1", "--task", "task/0"], "larger tracking.tokens_mb"),
        (["--step", "1"], "Add --text"),
    ],
)
def test_what_is_not_there_is_an_error_with_a_remedy(run, capsys, words, said):
    assert main(["inspect", str(run), *words]) == 2
    assert said in capsys.readouterr().err


def test_folders_without_anything_to_see_are_named(tmp_path, capsys):
    assert main(["inspect", str(tmp_path / "none")]) == 2
    assert "is not a run folder" in capsys.readouterr().err
    empty = make_run(tmp_path / "empty", steps=1)
    rollouts_path(empty / "rollouts", 1).unlink()
    assert main(["inspect", str(empty)]) == 2
    assert "has no table of rollouts" in capsys.readouterr().err


def test_runs_from_before_tokens_were_recorded_can_be_looked_at(run, tmp_path, capsys):
    old = without_tokens(run, tmp_path / "old")
    assert main(["inspect", str(old)]) == 0
    assert '"kept":[0,0,' in (old / "inspect.html").read_text()
    assert main(["inspect", str(old), "--text"]) == 2
    assert "tracking.tokens_mb" in capsys.readouterr().err
    assert main(["inspect", str(old), "--text", "--sample", "0"]) == 0
    assert "were not recorded" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["plain words", "naïve – 日本語 🙂🙃", "a\n\tb  c", "ends in half of 🙂"])
def test_the_texts_of_tokens_join_to_the_response(text):
    tokenizer = byte_tokenizer()
    ids = tokenizer(text)["input_ids"] + [tokenizer.convert_tokens_to_ids("<|eot|>")]
    if "half" in text:
        ids = ids[:-3]
    tokens = TokenTexts(tokenizer.decode).of(ids)
    assert len(tokens) == len(ids) and "".join(tokens) == tokenizer.decode(ids)


def test_the_texts_of_a_tokenizer_that_strips_single_tokens_join_too():
    """As sentencepiece's decoders do: the first token of a text loses its space."""
    words = ["▁def", "▁f", "(", "a", ")", "▁:"]
    tokens = TokenTexts(lambda ids: "".join(words[i] for i in ids).replace("▁", " ").removeprefix(" "))
    assert tokens.of(range(6)) == ["def", " f", "(", "a", ")", " :"]
