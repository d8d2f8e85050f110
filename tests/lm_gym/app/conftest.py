"""What the tests of the commands share."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from lm_gym.app.cli import main
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


@pytest.fixture(scope="session")
def smoke_demo(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> tuple[Path, str, str]:
    """The demo in its short form: its folder, which no test writes into, and what it told on both streams.

    It runs once for all processes of a test session.
    """
    base = tmp_path_factory.getbasetemp()
    shared = (base if worker_id == "master" else base.parent) / "smoke-demo"
    told = shared / "told.json"
    with FileLock(f"{shared}.lock"):
        if not told.is_file():
            out, err = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                assert main(["demo", "--smoke", "--out", str(shared / "run")]) == 0
            told.write_text(json.dumps([out.getvalue(), err.getvalue()]))
    return shared / "run", *json.loads(told.read_text())


@pytest.fixture(scope="session")
def copied_demo(smoke_demo: tuple[Path, str, str]) -> Callable[[Path], Path]:
    """Copy the run of :func:`smoke_demo` to a place of one's own. Returns: that place."""
    return lambda place: Path(shutil.copytree(smoke_demo[0], place))
