"""Which part of a program a token belongs to: an operation, another name, or boilerplate."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sdpo.envs.minicode.operations import LIST_OPERATIONS, TEXT_OPERATIONS
from studies.pretrain.code_corpus import PHRASES
from studies.pretrain.tokenizer import ASSISTANT, END, PAD, SYSTEM, USER

OPERATION, NAME, BOILERPLATE = "operation", "name", "boilerplate"
CLASSES = (OPERATION, NAME, BOILERPLATE)

_VARIABLES = {"x", "v", "s"}
_KEYWORDS = {"for", "in", "if", "else", "import", "return", "def", "class", "while", "True", "print", "pass", "python"}
_EXPRESSIONS = [o.expression for family in (LIST_OPERATIONS, TEXT_OPERATIONS) for ops in family.values() for o in ops]
OPERATION_NAMES = {w for e in _EXPRESSIONS for w in re.findall(r"[A-Za-z_]+", e)} - _VARIABLES - _KEYWORDS
_PHRASES = {phrase.strip() for phrase in (*PHRASES, PAD, END, USER, ASSISTANT, SYSTEM)}
_COMPUTES = re.compile(r"\d|[\[\]*%+\-/:<>]|==")


def token_classes(tokens: Sequence[str]) -> list[str]:
    """The class of each token of a response, given as texts.

    operation    what computes: names and symbols of minicode's operations, numbers, indices, comparisons, and the name
                 of a function of `kit`
    name         other identifiers: variables, and words that are no operation
    boilerplate  what stands in every program: reading, printing, keywords, parentheses, the fence, the end; phrases
                 that are one token of the bundled tokenizer count as a whole
    """
    classes, after_kit = [], False
    for token in tokens:
        text = token.strip()
        if re.fullmatch(r"[A-Za-z_]+", text):
            if after_kit or text in OPERATION_NAMES:
                kind = OPERATION
            else:
                kind = BOILERPLATE if text in _KEYWORDS else NAME
        elif text in _PHRASES or not _COMPUTES.search(text):
            kind = BOILERPLATE
        else:
            kind = OPERATION
        after_kit = text == "kit." or (after_kit and kind == OPERATION and text.isalpha())
        classes.append(kind)
    return classes
