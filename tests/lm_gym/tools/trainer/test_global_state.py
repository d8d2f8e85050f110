import os
import random

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from transformers.utils import logging as hf_logging

from lm_gym.tools.trainer.global_state import restored_global_state


def state():
    return (
        random.getstate(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002
        torch.get_rng_state().tolist(),
        torch.is_grad_enabled(),
        dict(os.environ),
        hf_logging.get_verbosity(),
        dict(PartialState._shared_state),
        dict(AcceleratorState._shared_state),
    )


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_put_back_also_after_an_error(monkeypatch, fails):
    monkeypatch.setenv("LM_GYM_MARK", "1")
    monkeypatch.setitem(PartialState._shared_state, "mark", 1)
    before = state()
    with pytest.raises(KeyError) if fails else torch.enable_grad(), restored_global_state():
        random.seed(5)
        np.random.seed(6)  # noqa: NPY002
        torch.manual_seed(7)
        torch.set_grad_enabled(False)
        del os.environ["LM_GYM_MARK"]
        os.environ["LM_GYM_NEW"] = "2"
        hf_logging.set_verbosity(hf_logging.get_verbosity() + 10)
        PartialState._shared_state.clear()
        AcceleratorState._shared_state["new"] = 1
        assert all(now != then for now, then in zip(state(), before, strict=True))
        if fails:
            raise KeyError
    assert state() == before


def test_gradients_are_on_inside():
    with torch.no_grad(), restored_global_state():
        assert torch.is_grad_enabled()
