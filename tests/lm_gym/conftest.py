"""Shared parts of the core's tests; ``tests/lm_gym/tiny.py`` is importable everywhere here as ``tiny_models``."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

# Examples repeat from run to run, and a machine under load fails no property.
settings.register_profile("core", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("core")

_NAME = "tiny_models"


def _register() -> None:
    """Under importlib import mode no test folder is on ``sys.path``, so the helper module is entered by hand."""
    spec = importlib.util.spec_from_file_location(_NAME, Path(__file__).with_name("tiny.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[_NAME] = module
    spec.loader.exec_module(module)


if _NAME not in sys.modules:
    _register()

from tiny_models import architecture_model  # noqa: E402 (registered just above)

from lm_gym import LanguageModel, Reference  # noqa: E402


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def _model(architecture: str) -> LanguageModel:
    return architecture_model(architecture)


@pytest.fixture(scope="session")
def model_of() -> Callable[[str], LanguageModel]:
    """One model per architecture for the whole session; nobody may train it."""
    return _model


@pytest.fixture(scope="session")
def reference_of() -> Callable[[str], Reference]:
    return lambda architecture: Reference(_model(architecture))


@pytest.fixture(scope="session")
def reference() -> Reference:
    """A tiny random GPT-2 over the words of ``tiny_models``."""
    return Reference(_model("gpt2"))
