"""Run folders of fine-tuning: kills, signals, damage, resume, overwrite."""

import json
import os
import signal
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from lm_gym.agents import SupervisedConfig, supervised_finetune
from lm_gym.agents.supervised.loop import RunWatcher
from lm_gym.app.cli import main
from lm_gym.errors import ConfigError, DataError, OutputExistsError

ROWS = [{"prompt": f"{a}+{b}=", "completion": f"{a + b}"} for a in (1, 4, 7) for b in (2, 5, 8)][:8]
UNEVEN = [
    {"prompt": "so: ", "completion": "a"},
    {"prompt": "a b c d e f g h: ", "completion": "one two three four"},
    {"prompt": "x: ", "completion": "yes no"},
    {"prompt": "hm: ", "completion": "b"},
]
QUICK = {"log_every": 1, "checkpoint_every": 100, "warmup_fraction": 0.0}


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def read_metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


class Killed(Exception):
    pass


def killed_at(step):
    original = RunWatcher.on_step_end

    def kill(self, args, state, control, **kwargs):
        original(self, args, state, control, **kwargs)
        if state.global_step == step:
            raise Killed

    return kill


@pytest.mark.parametrize("dropout", [False, True])
def test_resume_after_a_kill_equals_the_run_without_one(make_model, tokenizer, tmp_path, monkeypatch, dropout):
    config = SupervisedConfig(
        max_steps=12, batch_size=3, gradient_accumulation=2, learning_rate=1e-3, dropout=dropout,
        log_every=2, eval_every=6, checkpoint_every=3,
    )  # fmt: skip
    options = {"config": config, "tokenizer": tokenizer, "eval_rows": UNEVEN}
    whole = make_model()
    expected = supervised_finetune(whole, ROWS, tmp_path / "whole", **options)

    out = tmp_path / "killed"
    monkeypatch.setattr(RunWatcher, "on_step_end", killed_at(9))
    with pytest.raises(Killed):
        supervised_finetune(make_model(), ROWS, out, **options)
    monkeypatch.undo()
    half = out / "checkpoints" / "checkpoint-7"
    half.mkdir()
    (half / "config.json").write_text("{")  # a checkpoint that the kill cut short
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "lo')
    with pytest.raises(ValueError, match="Unrecognized model"):
        AutoModelForCausalLM.from_pretrained(out)

    resumed = make_model()
    result = supervised_finetune(resumed, ROWS, out, **options, resume=True)
    assert torch.equal(weights(resumed), weights(whole))
    assert result.steps == 12
    assert result.eval_loss == expected.eval_loss
    steps = [line["step"] for line in read_metrics(out) if "loss" in line]
    assert steps == [2, 4, 6, 8, 10, 12], "no step is logged twice"

    again = supervised_finetune(make_model(), ROWS, out, **options, resume=True)
    assert again == result, "a finished run returns what it reached"


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_flipped_byte_in_a_checkpoint_is_found_and_the_one_before_is_used(
    make_model, tokenizer, tmp_path, monkeypatch, caplog, file
):
    options = {"tokenizer": tokenizer, "config": SupervisedConfig(max_steps=6, checkpoint_every=2, log_every=1)}
    whole = make_model()
    supervised_finetune(whole, ROWS, tmp_path / "whole", **options)
    out = tmp_path / "run"
    monkeypatch.setattr(RunWatcher, "on_step_end", killed_at(5))
    with pytest.raises(Killed):
        supervised_finetune(make_model(), ROWS, out, **options)
    monkeypatch.undo()
    damaged = out / "checkpoints" / "checkpoint-4" / file
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    resumed = make_model()
    supervised_finetune(resumed, ROWS, out, **options, resume=True)
    assert "checkpoint-4 is not whole, the one before is taken" in caplog.text
    assert torch.equal(weights(resumed), weights(whole))
    assert [line["step"] for line in read_metrics(out)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_the_step_at_work_and_exits_non_zero(make_model, tokenizer, tmp_path, monkeypatch, number):
    base, out, rows = tmp_path / "base", tmp_path / "run", tmp_path / "rows.jsonl"
    make_model().save_pretrained(base)
    tokenizer.save_pretrained(base)
    rows.write_text("\n".join(json.dumps(row) for row in ROWS))
    command = ["sft", "--model", str(base), "--data", str(rows), "--epochs", "20", "--batch-size", "4"]
    assert main([*command, "--out", str(tmp_path / "whole")]) == 0
    original = RunWatcher.on_step_end

    def signalled(self, args, state, control, **kwargs):
        if state.global_step == 7:
            os.kill(os.getpid(), number)
        original(self, args, state, control, **kwargs)

    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    monkeypatch.setattr(RunWatcher, "on_step_end", signalled)
    assert main([*command, "--out", str(out)]) == 128 + number
    monkeypatch.undo()
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == handlers
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["checkpoint-7"]
    assert main([*command, "--out", str(out), "--resume"]) == 0
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


def test_resume_refuses_another_run_and_names_what_differs(make_model, tokenizer, merging_tokenizer, tmp_path):
    config = SupervisedConfig(max_steps=1, **QUICK)
    usual = {"model": make_model(), "rows": UNEVEN, "config": config, "tokenizer": tokenizer}

    def resume(eval_rows=None, **changes):
        model, rows, config, words = (usual | {"model": make_model()} | changes).values()
        out = tmp_path / "run"
        supervised_finetune(model, rows, out, config, tokenizer=words, eval_rows=eval_rows, resume=True)

    resume()
    resume()
    other_dropout = make_model(resid_pdrop=0.5)
    for changes, named in [
        ({"config": replace(config, max_steps=2)}, r"max_steps \(was 1, is 2\); restore"),
        ({"rows": ROWS}, "input rows "),
        ({"eval_rows": ROWS}, r"input eval_rows \(was not set"),
        ({"model": make_model(seed=5)}, "input start_weights "),
        ({"model": other_dropout}, "input model_config "),
        ({"tokenizer": merging_tokenizer, "model": make_model()}, "input tokenizer "),
    ]:
        with pytest.raises(ConfigError, match=f"must go on with the same .* differ: {named}"):
            resume(**changes)


def test_another_base_model_is_refused_before_it_is_trained(make_model, tokenizer, tmp_path, monkeypatch):
    """The folder of the base model is the same, what it holds is not."""
    config = SupervisedConfig(max_steps=4, checkpoint_every=2, log_every=1)
    base, out = tmp_path / "base", tmp_path / "run"
    make_model().save_pretrained(base)
    tokenizer.save_pretrained(base)
    monkeypatch.setattr(RunWatcher, "on_step_end", killed_at(3))
    with pytest.raises(Killed):
        supervised_finetune(base, UNEVEN, out, config)
    monkeypatch.undo()
    make_model(seed=5).save_pretrained(base)
    with pytest.raises(ConfigError, match="differ: input start_weights "):
        supervised_finetune(base, UNEVEN, out, config, resume=True)
    make_model().save_pretrained(base)
    assert supervised_finetune(base, UNEVEN, out, config, resume=True).steps == 4


def test_an_output_folder_that_no_run_wrote_is_never_touched(make_model, tokenizer, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    config = SupervisedConfig(max_steps=1, **QUICK)
    for flags in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(OutputExistsError, match=r"holds thesis\.tex, which no run wrote and nothing here deletes"):
            supervised_finetune(make_model(), UNEVEN, tmp_path, config, tokenizer=tokenizer, **flags)
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_overwrite_replaces_an_earlier_run_once_the_rows_are_read(make_model, tokenizer, tmp_path):
    config = SupervisedConfig(max_steps=1, **QUICK)
    supervised_finetune(make_model(), UNEVEN, tmp_path, config, tokenizer=tokenizer)
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(OutputExistsError, match="--overwrite"):
        supervised_finetune(make_model(seed=5), UNEVEN, tmp_path, config, tokenizer=tokenizer)
    with pytest.raises(DataError, match="row 1"):
        supervised_finetune(make_model(seed=5), [{}], tmp_path, config, tokenizer=tokenizer, overwrite=True)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    supervised_finetune(make_model(seed=5), UNEVEN, tmp_path, config, tokenizer=tokenizer, overwrite=True)
    assert (tmp_path / "model.safetensors").read_bytes() != before
