from __future__ import annotations

import os
import socket
import weakref

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.learner.tiny import make_model

os.environ["DS_ACCELERATOR"] = "cpu"


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def double(model):
    """The same in float64; copy it before changing it."""
    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64)


@pytest.fixture(scope="package", autouse=True)
def no_process_group_left():
    """DeepSpeed joins a process group of one; other tests of the same process make their own."""
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.fixture
def start():
    """A learner of one rank in this process: real DeepSpeed, no Ray."""
    from sdpo.algorithms import build_algorithm
    from sdpo.learner.worker import LearnerWorker

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()

    made = weakref.WeakSet()  # a test may do without a worker before its end

    def make(recipe):
        made.add(worker := LearnerWorker(recipe, build_algorithm(recipe).plan, 0))
        worker.start(address)
        return worker

    yield make
    for worker in made:
        worker._zero3_loading = None  # while it lives, other tests' models would be loaded in shards
