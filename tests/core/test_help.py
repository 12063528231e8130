"""What help and messages advise works."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import socket
import subprocess
import sys
import threading

import pytest

from sdpo.cli import _parser
from sdpo.config.files import compare_command, find_recipe, load_recipe
from sdpo.config.paths import PROJECT
from studies.__main__ import _parser as studies_parser
from studies.__main__ import main as studies_main
from studies.pretrain.command import parse


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    return next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices


COMMANDS = commands(_parser()) | {"pretrain": commands(studies_parser())["pretrain"]}


@pytest.mark.parametrize("name", [n for n, p in COMMANDS.items() if any(a.dest == "overrides" for a in p._actions)])
def test_the_options_that_help_gives_as_examples_are_accepted(name):
    text = next(action.help for action in COMMANDS[name]._actions if action.dest == "overrides")
    examples = re.findall(r"[\w.]+=[^\s;,]+", text)
    assert examples
    if name == "pretrain":
        parse(examples)
    else:
        load_recipe(find_recipe("livecodebench", "sdpo"), "cpu", examples)


def test_pretrain_takes_whole_numbers_as_they_are(capsys):
    assert studies_main(["pretrain", "seed=1.5"]) == 2
    assert "seed='1.5': give a value like 0" in capsys.readouterr().err


@pytest.mark.parametrize("directory", ["runs", "my runs"])
def test_the_command_that_compares_finds_the_folder_of_the_runs(directory):
    recipe = load_recipe(find_recipe("livecodebench", "sdpo"), "cpu", [f"run.directory={directory}"])
    options = _parser().parse_args(shlex.split(compare_command(recipe))[1:])
    assert (options.words, options.runs) == (["livecodebench"], directory)
    given = dict(word.split("=", 1) for word in shlex.split(compare_command(recipe, make=True))[2:])
    options = _parser().parse_args(["compare", given["RECIPE"], *shlex.split(given.get("ARGS", ""))])
    assert (options.words, options.runs) == (["livecodebench"], directory)


@pytest.mark.slow
def test_a_hub_that_does_not_answer_is_asked_once(tmp_path):
    """A server that hangs up: its library's own way is to try each file six times, half a minute long."""
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                asked.append(connection)
                connection.close()

        threading.Thread(target=hang_up, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path), "PYTHONPATH": str(PROJECT)}
        environment.pop("HF_HUB_OFFLINE", None)
        command = [sys.executable, "-m", "sdpo.cli", "train", "livecodebench", "--profile", "gpu", "--dry-run"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
        server.shutdown(socket.SHUT_RDWR)
    assert done.returncode == 2 and 1 <= len(asked) <= 2  # its HTTP library tries a second time by itself
    assert f"it is not in the cache, and {endpoint} does not answer" in done.stderr and "Retry" not in done.stderr
