import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"


@pytest.fixture(autouse=True)
def environment_as_before() -> Iterator[None]:
    """Take back what a command sets in the environment of its process."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """Take away the handlers that a command sets up: they write to what is closed afterwards."""
    before = set(logging.root.handlers)
    yield
    for handler in set(logging.root.handlers) - before:
        if type(handler).__module__.split(".")[0] in ("logging", "rich"):
            logging.root.removeHandler(handler)


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random BERT with its tokenizer; not to be changed."""
    import torch

    from tests.models import save_huggingface

    torch.set_num_threads(1)  # spares tiny tensors the wait for a second thread
    return save_huggingface(tmp_path_factory.mktemp("bert") / "checkpoint-1")


@pytest.fixture
def copy_of_bert(bert_folder: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that makes a copy, which may be changed, under a name."""

    def copy(name: str = "checkpoint-1") -> Path:
        return Path(shutil.copytree(bert_folder, tmp_path / "training" / name))

    return copy
