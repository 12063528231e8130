"""Make text that a program wrote harmless in a prompt, by what it looks like rather than by a list of names.

Two things could pass for something else: a *token* with a meaning of its own (`<|im_end|>`, `[TOOL_CALLS]`, three
backticks) and a *line* that reads like one of ours, or like a speaker's (`Verdict: accepted`, `### Instruction:`,
`assistant`).  A token is broken by a space behind its first character, a line is quoted with "> ".  Numbers, grids,
lists, comparisons and single words, which is what programs print, look like neither and stay as they are.
"""

from __future__ import annotations

import re
import unicodedata

CUT = "... (truncated)"

_NOT_TAGS = r"(?!(?:module|lambda|listcomp|genexpr|dictcomp|setcomp|locals|\d+)>)"  # Python's own names; numbers
_SPECIAL_TOKEN = re.compile(
    "|".join(
        (
            r"<(?=[|!\[])",  # <|im_end|>, <!--, <[begin_of_image]>; anything that follows counts
            rf"<{_NOT_TAGS}(?=[/<]*[^\W\d_][^\s<>]*>)",  # <s>, </think>, <start_of_turn>, <<SYS>>, <tool=x>
            r"<(?=0x[0-9a-f]{2}>)",  # a byte token
            r"\[(?=/?INST\b)",
            r"\[(?=[/@][\w@ ]+\])",  # [/THINK], [@BOS@]
            r"(?-i:\[(?=\w*[A-Z][A-Z]\w*\]))",  # [TOOL_CALLS], [gMASK], [MASK]
            r"\[(?=[^\W\d_]\w*_\w*\])",  # [control_12]
            r"\[(?=[^\W\d_]{3,}\d+\])",  # [unused1]
            r"[\[\]](?=\w?~)|~(?=!?\w?[\[\]])",  # ]~b], [e~[
            r"(?-i:>>(?=[A-Z_]{2,}<<))",  # >>TITLE<<
            r"\{(?=[{%#])",  # a template's own
            r"`(?=``)",
        )
    ),
    re.IGNORECASE,
)
# Characters that become one of these under NFKC, as tokenizers apply it, are not left to do so.
_STRUCTURAL = frozenset("`<>[]{}|#~")
_WORD_BOUNDARY = "\u2581"  # "▁": a space to a SentencePiece tokenizer
_SPEAKERS = "system|user|assistant|human|model|tool|developer|function|observation|ai|bot"
_OURS = (
    "correct|feedback|solution|solved|runtime error|time limit|memory limit|output limit|wrong answer|test case"
    "|last executed|input|output|expected|verdict|accepted|passed|failed|judge|instruction|response|answer|question"
    "|problem|reward|score"
)
_WORD = r"[^\W\d_]+(?:['’][^\W\d_]+)?"
_LINE_OF_OURS = re.compile(
    "|".join(
        (
            rf"^\W*(?:{_SPEAKERS}|{_OURS})(?:ly|s)?(?=\W|$)",
            r"\b(?:verdict|accepted|passed|correct(?:ly)?|instructions?|feedback)\b",
            rf"^\W*{_WORD}(?: {_WORD}){{0,4}}\s*:(?=\W*$|\s)",  # a heading or a speaker: words and a colon
            r"^\s*(?:#{1,6}|\*\*|__)\s*[^\W\d_]{2}",  # a heading or a bold line in Markdown
            r"^\s*(?:`{3}|~{3}|-{3,}\s*[^\W\d_])",
            rf"(?:\b[^\W\d_]{{2,}}\b[,.;]? ){{2}}{_WORD}",  # three words in a row: prose
            r"[\u2e80-\u9fff\uac00-\ud7af]{4}",  # prose in a script without spaces
            re.escape(CUT),
        )
    ),
    re.IGNORECASE,
)


def sanitize(text: str, limit: int) -> str:
    """`text` without the power to imitate a template, a speaker or a special token, in at most `limit` characters.

    Control and format characters, and characters that only look like ASCII punctuation, become visible escapes.  A cut
    is marked.
    """
    return _limited(text, limit, "\n".join(_safe_line(line) for line in _window(text, limit).split("\n")))


def sanitize_inline(text: str, limit: int) -> str:
    """The same for text that follows words of ours on a line, so that its first line can pass for none of ours."""
    first, *others = _window(text, limit).split("\n")
    return _limited(text, limit, "\n".join([_without_tokens(first), *map(_safe_line, others)]))


def _window(text: str, limit: int) -> str:
    return text[: 2 * limit + 100]


def _limited(text: str, limit: int, safe: str) -> str:
    if len(safe) <= limit and len(text) <= 2 * limit + 100:
        return safe
    return safe[: max(limit - len(CUT), 0)] + CUT[:limit]


def _safe_line(line: str) -> str:
    safe = _without_tokens(line)
    return "> " + safe if _reads_like_ours(line) else safe


def _without_tokens(line: str) -> str:
    line = "".join(character if _visible(character) else _escape(character) for character in line)
    return _SPECIAL_TOKEN.sub(lambda match: match.group() + " ", line)


def _reads_like_ours(line: str) -> bool:
    plain = unicodedata.normalize("NFKC", line)
    plain = "".join(character for character in plain if unicodedata.category(character) not in ("Cf", "Mn"))
    return bool(_LINE_OF_OURS.search(plain)) or (not plain.isascii() and _mixes_scripts(plain))


def _mixes_scripts(line: str) -> bool:
    """A word of Latin and Greek or Cyrillic letters: the latter stand for Latin ones."""
    for word in re.findall(r"[^\W\d_]{2,}", line):
        scripts = {unicodedata.name(character, "?").split(" ")[0] for character in word}
        if "LATIN" in scripts and scripts & {"CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC"}:
            return True
    return False


def _visible(character: str) -> bool:
    if character == "\t" or " " <= character <= "~":
        return True
    if unicodedata.category(character)[0] in "CZ" or character == _WORD_BOUNDARY:
        return False
    if not _STRUCTURAL.isdisjoint(unicodedata.normalize("NFKC", character)):
        return False
    # Those that look like a backtick without becoming one.
    return not ("GRAVE ACCENT" in (name := unicodedata.name(character, "")) or name.endswith("REVERSED PRIME"))


def _escape(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode() if not character.isascii() else repr(character)[1:-1]
