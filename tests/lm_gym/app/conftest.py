"""What the tests of the commands share."""

from __future__ import annotations

from pathlib import Path

import pytest

from lm_gym.assets import REVIEWS_LM


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """A sentence encoder on the built-in language model."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    base = Transformer(str(REVIEWS_LM), max_seq_length=128)
    base.tokenizer.pad_token = base.tokenizer.pad_token or base.tokenizer.eos_token
    made = SentenceTransformer(modules=[base, Pooling(base.get_embedding_dimension())], device="cpu")
    made.save(str(tmp_path / "encoder"), create_model_card=False)
    return tmp_path / "encoder"
