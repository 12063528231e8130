"""Text of unknown origin on its way to a terminal."""

from __future__ import annotations

import ast
import io
import unicodedata

import pytest

from sdpo.config.paths import PROJECT
from sdpo.config.safe_console import SafeConsole
from sdpo.config.terminal import say, say_exception, shown
from sdpo.tracking import Console

ATTACKS = {
    "\x1b]0;owned\x07": "␛]0;owned␇",  # retitles the window
    "\x1b[2J\x1b[1;1H": "␛[2J␛[1;1H",  # clears the screen
    "\x1b]52;c;cm0gLXJm\x1b\\": "␛]52;c;cm0gLXJm␛\\",  # fills the clipboard
    "passed\rfailed": "passed␍failed",  # overwrites the line
    "\x9b31m": "\\x9b31m",  # the same as ESC [ in one character
    "abc\u202etxt.exe": "abc\\u202etxt.exe",  # reads from right to left
    "\u2066x\u2069": "\\u2066x\\u2069",
    "a\u200bb\ufeff": "a\\u200bb\\ufeff",
    "\U000e0041": "\\U000e0041",
    "\x08\x08\x7f": "␈␈␡",
    "\ud800": "\\ud800",
}


@pytest.mark.parametrize("text", ATTACKS)
def test_what_would_steer_a_terminal_is_shown(text):
    assert shown(text) == ATTACKS[text] and shown(shown(text)) == shown(text)
    output = io.StringIO()
    say(text, output)
    assert output.getvalue() == ATTACKS[text] + "\n"


def test_ordinary_text_of_any_script_is_left_alone():
    text = "naïve 漢字 עברית العربية हिन्दी 👩‍👩‍👧\n\tindented\n"
    assert shown(text) == text
    assert shown("a\r\nb") == "a\nb"


def test_no_control_and_no_hidden_format_character_comes_through():
    joiners = {"\u200c", "\u200d"}  # of emoji and of some scripts
    tables = [
        chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    ]
    passed = {c for c in tables if shown(c) == c} - joiners - {"\n", "\t"}
    rare = {c for c in passed if unicodedata.bidirectional(c) not in ("BN", "")}
    assert all(ord(c) > 0x800 and unicodedata.category(c) == "Cf" for c in passed), passed
    assert not {c for c in rare if unicodedata.bidirectional(c) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI")}


@pytest.mark.parametrize("terminal", [True, False])
def test_the_live_console_shows_them_too(terminal):
    output = io.StringIO()
    rich = SafeConsole(file=output, force_terminal=terminal, width=200)
    with Console("run \x1b[2J", 3, plain=not terminal, rich_console=rich) as console:
        console.message("a response: \x1b]0;owned\x9b \u202e")
        with console.phase("phase \x1b[2J", announce=True):
            pass
        console.step({"step": 1, "verdict/label\x1b[2J": 3})
    text = output.getvalue()
    assert "␛]0;owned\\x9b \\u202e" in text
    assert "\x1b]0;owned" not in text and "\x9b" not in text and "\u202e" not in text and "\x1b[2J" not in text


def test_a_traceback_shows_the_text_of_its_error(capsys):
    try:
        raise ValueError("\x1b[2J")
    except ValueError as error:
        say_exception(type(error), error, error.__traceback__)
    said = capsys.readouterr().err
    assert "ValueError: ␛[2J" in said and "\x1b" not in said


def test_a_closed_pipe_does_not_end_a_run():
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    say("x", Closed())
    with Console("run", 1, plain=True, rich_console=SafeConsole(file=Closed())) as console:
        console.message("x")
        console.message("y")


def test_there_is_no_other_way_to_the_terminal():
    """print and rich's own console are called nowhere else in the package."""
    allowed = {"sdpo/config/terminal.py", "sdpo/config/safe_console.py", "sdpo/training/interrupt.py"}
    found = set()
    for file in sorted((PROJECT / "sdpo").rglob("*.py")):
        tree = ast.parse(file.read_text())
        rich = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "rich.console"
            for alias in node.names
            if alias.name == "Console"
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"print", *rich}:
                found.add(str(file.relative_to(PROJECT)))
    assert found <= allowed
