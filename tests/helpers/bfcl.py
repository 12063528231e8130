"""The leaderboard's own checker, which its package imports only beside the clients of every vendor."""

from __future__ import annotations

import collections
import contextlib
import importlib
import os
import sys
import tempfile
import types
from unittest import mock

# What it would write beside its own files when it is imported.
os.environ.setdefault("BFCL_PROJECT_ROOT", tempfile.mkdtemp(prefix="bfcl-"))


class _Model:
    underscore_to_dot = False


def ast_checker():
    """`bfcl_eval.eval_checker.ast_eval.ast_checker`, without the table of models: one entry of it is read."""
    importlib.import_module("bfcl_eval.constants.enums")
    importlib.import_module("bfcl_eval.constants.type_mappings")
    table = types.ModuleType("bfcl_eval.constants.model_config")
    table.MODEL_CONFIG_MAPPING = collections.defaultdict(_Model)
    with mock.patch.dict(sys.modules, {table.__name__: table}):
        return importlib.import_module("bfcl_eval.eval_checker.ast_eval.ast_checker").ast_checker


def prompt_of(entry, messages):
    """The leaderboard's own first messages for a row, whose module imports parsers that nothing here calls."""
    stubs = {}
    for name, attributes in {
        "bfcl_eval.model_handler.parser.java_parser": ("parse_java_function_call",),
        "bfcl_eval.model_handler.parser.js_parser": ("parse_javascript_function_call",),
        "tenacity": ("retry", "retry_if_exception_message", "retry_if_exception_type", "wait_random_exponential"),
    }.items():
        stubs[name] = types.ModuleType(name)
        for attribute in attributes:
            setattr(stubs[name], attribute, None)
    with mock.patch.dict(sys.modules, stubs):
        utils = importlib.import_module("bfcl_eval.model_handler.utils")
    return utils.system_prompt_pre_processing_chat_model(
        [dict(message) for message in messages], entry["function"], entry["id"]
    )


def multi_turn_verdict(entry, wanted, calls):
    """The leaderboard's verdict; calls: of each answer with calls, by message of the user, as texts."""
    checker = importlib.import_module("bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker")
    utils = importlib.import_module("bfcl_eval.eval_checker.multi_turn_eval.multi_turn_utils")
    try:
        with contextlib.redirect_stdout(None):
            return checker.multi_turn_checker(calls, wanted, entry, "", "policy")["valid"]
    finally:
        for name in [name for name in vars(utils) if name.endswith("_instance")]:
            del vars(utils)[name]  # it keeps every service by name
