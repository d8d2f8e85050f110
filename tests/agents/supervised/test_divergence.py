"""Training that diverges stops before the optimiser step: the weights stay finite, the last good checkpoint stays."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from lm_gym.agents import PretrainConfig, SupervisedConfig, pretrain, supervised_finetune
from lm_gym.agents.supervised.trainer import TokenLossTrainer
from lm_gym.app.cli import main
from lm_gym.errors import DivergedError

ROWS = [{"prompt": f"{a}+{b}=", "completion": f"{a + b}"} for a in (1, 4, 7) for b in (2, 5, 8)]
TEXT = "\n\n".join(f"line {number} of a short text about nothing at all" for number in range(60))
SMALL = {"n_layer": 2, "n_embd": 32, "n_head": 2, "context": 32, "vocab_size": 280, "batch_size": 4}


def is_finite(model):
    return all(bool(torch.isfinite(weight).all()) for weight in model.parameters())


def test_fine_tuning_with_an_absurd_learning_rate(make_model, tokenizer, tmp_path):
    model = make_model()
    config = SupervisedConfig(epochs=100, batch_size=2, learning_rate=1e4, warmup_fraction=0, checkpoint_every=1)
    with pytest.raises(
        DivergedError, match=r"supervised fine-tuning: the .* step \d+ must be finite, got .*; start again with a lower"
    ):
        supervised_finetune(model, ROWS, tmp_path / "m", config, tokenizer=tokenizer)
    assert is_finite(model)
    assert not (tmp_path / "m" / "model.safetensors").exists()


def test_pretraining_with_an_absurd_learning_rate(tmp_path):
    config = PretrainConfig(**SMALL, max_steps=30, learning_rate=1e4, warmup_fraction=0)
    with pytest.raises(DivergedError, match="pretraining: "):
        pretrain(TEXT, tmp_path / "m", config)
    assert not (tmp_path / "m" / "model.safetensors").exists()


def test_a_poisoned_weight_is_found_before_anything_is_learned(make_model, tokenizer, tmp_path):
    model = make_model()
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.weight[3, 5] = float("nan")
    before = [weight.detach().clone() for weight in model.parameters()]
    with pytest.raises(DivergedError, match="loss of step 1 "):
        supervised_finetune(model, ROWS, tmp_path / "m", SupervisedConfig(epochs=1), tokenizer=tokenizer)
    assert all(torch.equal(a.nan_to_num(7), b.nan_to_num(7)) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("max_grad_norm", [1.0, 0.0])
def test_a_gradient_that_overflows_stops_before_the_step(
    make_model, tokenizer, tmp_path, monkeypatch, poison, max_grad_norm
):
    """1e30 is finite and its square is not: clipping by the norm would make every gradient 0, in silence."""
    model, seen = make_model(), []
    original = TokenLossTrainer.compute_loss

    def compute_loss(self, model, *args, **kwargs):
        if self.state.global_step == 4 and not seen:
            seen.extend(weight.detach().clone() for weight in model.parameters())
            handle = model.transformer.wpe.weight.register_hook(lambda gradient: gradient * 0 + poison)
            monkeypatch.setattr(TokenLossTrainer, "compute_loss", original)
            self.hook = handle
        return original(self, model, *args, **kwargs)

    monkeypatch.setattr(TokenLossTrainer, "compute_loss", compute_loss)
    out = tmp_path / "m"
    config = SupervisedConfig(
        max_steps=8, batch_size=2, gradient_accumulation=2, log_every=1, checkpoint_every=2, max_grad_norm=max_grad_norm
    )
    with pytest.raises(DivergedError, match="gradient of step 5 must be finite, got"):
        supervised_finetune(model, ROWS, out, config, tokenizer=tokenizer)
    assert all(torch.equal(a, b) for a, b in zip(seen, model.parameters(), strict=True))
    assert [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3, 4]
    # What made it diverge is gone: the run goes on from step 4 and ends as if nothing had been.
    resumed, whole = make_model(), make_model()
    supervised_finetune(resumed, ROWS, out, config, tokenizer=tokenizer, resume=True)
    supervised_finetune(whole, ROWS, tmp_path / "whole", config, tokenizer=tokenizer)
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), whole.parameters(), strict=True))


def test_weights_that_the_last_step_breaks_are_not_saved(make_model, tokenizer, tmp_path):
    config = SupervisedConfig(max_steps=1, learning_rate=3e38, weight_decay=1.0, warmup_fraction=0)
    with pytest.raises(DivergedError, match="largest weight after step 1 must be finite"):
        supervised_finetune(make_model(), ROWS, tmp_path / "m", config, tokenizer=tokenizer)
    assert not (tmp_path / "m" / "model.safetensors").exists()


@pytest.mark.parametrize("command", ["sft", "pretrain"])
def test_the_commands_exit_non_zero(make_model, tokenizer, tmp_path, capsys, command):
    out = str(tmp_path / "out")
    if command == "sft":
        make_model().save_pretrained(tmp_path / "base")
        tokenizer.save_pretrained(tmp_path / "base")
        (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS))
        arguments = ["--model", str(tmp_path / "base"), "--data", str(tmp_path / "rows.jsonl"), "--epochs", "9"]
    else:
        (tmp_path / "text.txt").write_text(TEXT)
        arguments = ["--data", str(tmp_path / "text.txt"), "--layers", "1", "--width", "16", "--heads", "2"]
        arguments += ["--vocabulary", "280", "--context", "32"]
    assert main([command, *arguments, "--out", out, "--learning-rate", "1e4"]) != 0
    assert "DivergedError" in capsys.readouterr().err
    with pytest.raises((OSError, ValueError)):
        AutoModelForCausalLM.from_pretrained(out)
