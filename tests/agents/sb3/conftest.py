"""A tiny language model in a folder; the environments of ``tests/agents`` have the same one as their reference."""

from pathlib import Path

import pytest

from lm_gym.testing import tiny_language_model


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of ``tiny_language_model()``, as Stable-Baselines3 is given it: by a handle."""
    folder = tmp_path_factory.mktemp("model")
    model = tiny_language_model()
    model.model.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder
