from collections.abc import Iterator

import pytest
import torch

from lm_gym import Reference
from lm_gym.testing import tiny_language_model


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_reference() -> Reference:
    """Three tokens: EOS, "a", "b"."""
    return Reference(tiny_language_model(vocab_size=3, max_length=8))


@pytest.fixture(scope="session")
def small_reference() -> Reference:
    """Five tokens: EOS, "a" to "d"."""
    return Reference(tiny_language_model(vocab_size=5, max_length=12))
