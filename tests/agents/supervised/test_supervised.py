import json
import logging
import math
import os
import re
import subprocess
import sys

import pytest
import torch
from accelerate import PartialState
from transformers import AutoModelForCausalLM, AutoTokenizer

from lm_gym.agents import SupervisedConfig, supervised_finetune
from lm_gym.agents.supervised.documents import read_documents, train_tokenizer
from lm_gym.agents.supervised.rows import tokenize_rows
from lm_gym.errors import ConfigError, DataError, ModelLoadError, UnsupportedModelError

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


def mean_nats(model, rows, tokenizer):
    """Per learned token over all rows, each row alone, from plain logits in float64."""
    nats = count = 0
    with torch.no_grad():
        for text in tokenize_rows(rows, tokenizer).rows:
            logits = model(torch.tensor([text.input_ids])).logits[0].double().log_softmax(-1)
            learned = [t for t, counts in enumerate(text.loss_mask) if counts]
            nats -= sum(float(logits[t - 1, text.input_ids[t]]) for t in learned)
            count += len(learned)
    return nats / count


def test_overfits_saves_and_generates(make_model, tokenizer, tmp_path):
    out = tmp_path / "model"
    config = SupervisedConfig(max_steps=300, learning_rate=3e-3, checkpoint_every=200)
    result = supervised_finetune(make_model(), ROWS, out, config, tokenizer=tokenizer, eval_rows=ROWS)
    assert result.eval_loss < 0.05
    assert result.perplexity == pytest.approx(math.exp(result.eval_loss))
    model, words = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert result.eval_loss == pytest.approx(mean_nats(model, ROWS, words), rel=1e-4)
    for row in ROWS:
        prompt = words(row["prompt"], return_tensors="pt")
        ids = model.generate(**prompt, do_sample=False, max_new_tokens=8)[0, prompt["input_ids"].shape[1] :]
        assert words.decode(ids) == row["completion"] + "<eos>", "it answers, then stops by itself"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"], "nothing is left beside the output folder"
    assert not list(out.glob("checkpoints*")), "the checkpoints go when the run ends"
    assert model.config.use_cache


def test_a_fresh_process_gives_the_same_logits(make_model, tokenizer, tmp_path):
    model = make_model()
    config = SupervisedConfig(max_steps=3, **QUICK)
    supervised_finetune(model, ROWS, tmp_path / "m", config, tokenizer=tokenizer)
    ids = torch.arange(20).unsqueeze(0)
    code = (
        "import sys, torch; from transformers import AutoModelForCausalLM; torch.set_num_threads(1);"
        "m = AutoModelForCausalLM.from_pretrained(sys.argv[1]);"
        "torch.save(m(torch.arange(20).unsqueeze(0)).logits, sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "m"), str(tmp_path / "logits.pt")], check=True)
    with torch.no_grad():
        assert torch.equal(model(ids).logits, torch.load(tmp_path / "logits.pt"))


def test_first_loss_and_eval_loss_equal_plain_logits(make_model, tokenizer, tmp_path):
    before = mean_nats(make_model().eval(), UNEVEN, tokenizer)
    model = make_model()
    config = SupervisedConfig(max_steps=2, batch_size=4, learning_rate=1e-2, **QUICK)
    result = supervised_finetune(model, UNEVEN, tmp_path, config, tokenizer=tokenizer, eval_rows=UNEVEN, overwrite=True)
    lines = read_metrics(tmp_path)
    assert lines[0]["loss"] == pytest.approx(before, rel=1e-5)
    assert [line["step"] for line in lines] == [1, 2, 2]
    assert set(lines[0]) == {"step", "epoch", "loss", "learning_rate", "grad_norm", "seconds"}
    assert lines[-1]["eval_loss"] == result.eval_loss == pytest.approx(mean_nats(model, UNEVEN, tokenizer), rel=1e-5)


@pytest.mark.parametrize(("batch_size", "accumulation"), [(2, 2), (1, 4)])
def test_gradient_accumulation_is_one_mean_over_all_tokens(make_model, tokenizer, tmp_path, batch_size, accumulation):
    finals = []
    for index, (size, times) in enumerate([(4, 1), (batch_size, accumulation)]):
        model = make_model()
        # Without Adam's division by its own size, a wrong scale of the gradient shows in the clipped norm only.
        config = SupervisedConfig(
            max_steps=2, batch_size=size, gradient_accumulation=times, learning_rate=1e-3, **QUICK
        )
        supervised_finetune(model, UNEVEN, tmp_path / str(index), config, tokenizer=tokenizer)
        finals.append((weights(model), [line["grad_norm"] for line in read_metrics(tmp_path / str(index))]))
    assert finals[0][1] == pytest.approx(finals[1][1], rel=1e-4)
    # Adam divides by sqrt(v): where a gradient is near 0, rounding decides its direction, so a few weights differ.
    torch.testing.assert_close(finals[0][0], finals[1][0], atol=2e-4, rtol=0)


@pytest.mark.parametrize(("accumulation", "steps"), [(1, 40), (3, 14)])
def test_twenty_epochs_are_twenty(make_model, tokenizer, tmp_path, accumulation, steps):
    """Five rows in batches of four: the second batch of a pass has one row, and the last step fewer batches."""
    config = SupervisedConfig(epochs=20, batch_size=4, gradient_accumulation=accumulation, **QUICK)
    result = supervised_finetune(make_model(), ROWS[:5], tmp_path, config, tokenizer=tokenizer, overwrite=True)
    assert (result.epochs, result.steps) == (20.0, steps)
    assert read_metrics(tmp_path)[-1]["epoch"] == 20.0


def test_eval_loss_does_not_depend_on_the_batch_size(make_model, tokenizer, tmp_path):
    losses = []
    for size in (1, 3, 4):
        config = SupervisedConfig(max_steps=1, batch_size=size, learning_rate=1e-12, **QUICK)
        out = tmp_path / str(size)
        result = supervised_finetune(make_model(), UNEVEN, out, config, tokenizer=tokenizer, eval_rows=UNEVEN)
        losses.append(result.eval_loss)
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)


def test_dropout_is_off_unless_asked_for(make_model, tokenizer, tmp_path):
    first = {}
    for name, dropout in (("off", False), ("on", True)):
        config = SupervisedConfig(max_steps=1, batch_size=4, dropout=dropout, **QUICK)
        supervised_finetune(make_model(resid_pdrop=0.5), UNEVEN, tmp_path / name, config, tokenizer=tokenizer)
        first[name] = read_metrics(tmp_path / name)[0]["loss"]
    expected = mean_nats(make_model().eval(), UNEVEN, tokenizer)
    assert first["off"] == pytest.approx(expected, rel=1e-5)
    assert first["on"] != pytest.approx(expected, rel=1e-3)


def test_the_process_is_left_as_it_was(make_model, tokenizer, tmp_path, monkeypatch):
    model = make_model()
    monkeypatch.setitem(PartialState._shared_state, "mark", 1)
    draws, environment, accelerate = torch.get_rng_state(), dict(os.environ), dict(PartialState._shared_state)
    with torch.no_grad():
        supervised_finetune(model, UNEVEN, tmp_path / "m", SupervisedConfig(max_steps=1), tokenizer=tokenizer)
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), draws)
    assert (dict(os.environ), dict(PartialState._shared_state)) == (environment, accelerate)


def test_a_saved_model_can_be_trained_again_in_its_own_folder(make_model, tokenizer, tmp_path):
    config = SupervisedConfig(max_steps=1, **QUICK)
    supervised_finetune(make_model(), UNEVEN, tmp_path / "a", config, tokenizer=tokenizer)
    result = supervised_finetune(tmp_path / "a", UNEVEN, tmp_path / "a", config, overwrite=True)
    assert result.output_dir == str(tmp_path / "a")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "a").generation_config.eos_token_id == 0


def test_a_saved_model_stops_at_the_stop_token_that_was_learned(make_model, tokenizer, tmp_path):
    model = make_model()
    model.generation_config.eos_token_id = [7, 50256]  # an end token of its own, and one outside the vocabulary
    supervised_finetune(model, UNEVEN, tmp_path, SupervisedConfig(max_steps=1, **QUICK), tokenizer=tokenizer)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path).generation_config
    assert saved.eos_token_id == [7, 0]
    assert saved.pad_token_id == 0


def test_weights_are_trained_in_float32_whatever_was_saved(make_model, tokenizer, tmp_path):
    make_model().to(torch.bfloat16).save_pretrained(tmp_path / "half")
    config = SupervisedConfig(max_steps=1, **QUICK)
    supervised_finetune(tmp_path / "half", UNEVEN, tmp_path / "whole", config, tokenizer=tokenizer)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "whole").dtype == torch.float32


def test_rows_from_files_and_their_errors(make_model, tokenizer, tmp_path):
    config = SupervisedConfig(max_steps=1, **QUICK)
    good, bad, empty = (tmp_path / name for name in ("good.jsonl", "bad.jsonl", "empty.jsonl"))
    good.write_text("\n".join(json.dumps(row) for row in UNEVEN))
    bad.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "a"\n')
    empty.write_text("")

    def run(rows):
        return supervised_finetune(make_model(), rows, tmp_path / "m", config, tokenizer=tokenizer)

    assert run(good).rows == 4
    with pytest.raises(DataError, match=r"bad\.jsonl, line 2: must be one JSON object"):
        run(bad)
    with pytest.raises(DataError, match=r"empty\.jsonl: must hold at least one row, got an empty file"):
        run(str(empty))
    good.write_text('{"prompt": "a", "completion": ""}')
    with pytest.raises(DataError, match=r"good\.jsonl, row 1: 'completion' must be non-empty text"):
        run(good)


@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.parquet"])
def test_rows_from_tables_and_data_sets(make_model, tokenizer, tmp_path, name):
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_list(ROWS)
    getattr(made, f"to_{name[2:]}")(tmp_path / name)
    config = SupervisedConfig(max_steps=1, **QUICK)
    supervised_finetune(make_model(), ROWS, tmp_path / "plain", config, tokenizer=tokenizer)
    for number, source in enumerate((tmp_path / name, made)):
        supervised_finetune(make_model(), source, tmp_path / f"{number}", config, tokenizer=tokenizer)
        assert read_metrics(tmp_path / f"{number}")[0]["loss"] == read_metrics(tmp_path / "plain")[0]["loss"]


def test_the_models_context_is_the_limit(make_model, tokenizer, tmp_path, caplog):
    rows = [*UNEVEN, {"prompt": "a" * 40, "completion": "b" * 8}]
    with pytest.raises(DataError, match="row 5: must have at most max_length = 48 tokens, got 49"):
        supervised_finetune(make_model(), rows, tmp_path / "m", tokenizer=tokenizer)
    config = SupervisedConfig(max_steps=1, on_long_row="truncate", **QUICK)
    with caplog.at_level(logging.WARNING, "lm_gym.agents.supervised.finetune"):
        result = supervised_finetune(make_model(), rows, tmp_path / "m", config, tokenizer=tokenizer)
    assert (result.rows, result.truncated_count, result.dropped_count) == (5, 1, 0)
    assert "1 rows were truncated and 0 dropped to fit 48 tokens" in caplog.text


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "a", "completion": "b"},
        {"prompt": "\U0001f642\u200d\U0001f467", "completion": "\U0001f600\u00e9"},
        {"prompt": "\0", "completion": "\0\0"},
        {"prompt": "a" * 5_000, "completion": "b" * 50_000},
        {"prompt": "a", "completion": "<|endoftext|>"},
    ],
    ids=["one token", "emoji", "nul bytes", "huge", "nothing but the stop token"],
)
def test_a_single_row_of_any_text_is_learned(make_model, tmp_path, row):
    words = train_tokenizer(read_documents("some text"), vocab_size=260, max_length=48)
    model = make_model(vocab_size=len(words))
    config = SupervisedConfig(epochs=2, gradient_accumulation=2, learning_rate=1e-2, on_long_row="truncate", **QUICK)
    result = supervised_finetune(model, [row], tmp_path / "m", config, tokenizer=words, eval_rows=[row])
    assert (result.steps, result.epochs) == (1, 2.0)
    assert result.eval_loss < read_metrics(tmp_path / "m")[0]["loss"]
    prompt = words(row["prompt"], truncation=True, max_length=8)["input_ids"]
    assert AutoTokenizer.from_pretrained(tmp_path / "m").decode(prompt) == words.decode(prompt)


def test_models_that_cannot_be_used(make_model, tokenizer, tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelLoadError, match=r"'no-such/model': must be a folder, .*; give a local folder if there"):
        supervised_finetune("no-such/model", ROWS, tmp_path / "m")
    with pytest.raises(
        ModelLoadError, match=r"nowhere': must be a folder with a saved model, or a GGUF file, and there is neither"
    ):
        supervised_finetune(tmp_path / "nowhere", ROWS, tmp_path / "m")
    with pytest.raises(ModelLoadError, match=r"a model object comes without a tokenizer; pass tokenizer="):
        supervised_finetune(make_model(), ROWS, tmp_path / "m")
    frozen = make_model().requires_grad_(False)
    with pytest.raises(UnsupportedModelError, match=r"all are frozen; call model\.requires_grad_"):
        supervised_finetune(frozen, ROWS, tmp_path / "m", tokenizer=tokenizer)
    small = make_model(vocab_size=10)
    with pytest.raises(UnsupportedModelError, match="must have an embedding for every token, has 10, and"):
        supervised_finetune(small, ROWS, tmp_path / "m", tokenizer=tokenizer)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "SupervisedConfig.epochs: must be a finite number > 0, got 0"),
        ({"epochs": float("inf")}, "SupervisedConfig.epochs: must be a finite number > 0, got inf"),
        ({"max_steps": 0}, "max_steps: must be None or a whole number >= 1, got 0"),
        ({"learning_rate": float("nan")}, "learning_rate: must be a finite number > 0, got nan"),
        ({"warmup_fraction": 1}, "warmup_fraction: must be a finite number in [0, 1), got 1"),
        ({"decay": "step"}, 'decay: must be "cosine", "linear" or "constant", got \'step\''),
        ({"on_long_row": "cut"}, 'on_long_row: must be "error", "truncate" or "drop", got \'cut\''),
        ({"batch_size": 0}, "batch_size: must be a whole number >= 1, got 0"),
        ({"max_length": 1}, "max_length: must be None or a whole number >= 2, got 1"),
        (
            {"instruction_template": "{question}"},
            "{instruction}, whole and as it is, and no other, got '{question}'",
        ),
        ({"instruction_template": "none"}, "as it is, and no other, got 'none'; write other braces twice"),
        ({"instruction_template": "{instruction[0]}"}, "as it is, and no other, got '{instruction[0]}'"),
        ({"instruction_template": "{instruction.x}"}, "as it is, and no other, got '{instruction.x}'"),
        ({"instruction_template": "{instruction:.9}"}, "as it is, and no other, got '{instruction:.9}'"),
        ({"instruction_template": "{instruction!r}"}, "as it is, and no other, got '{instruction!r}'"),
        ({"instruction_template": "{instruction} {"}, "as it is, and no other, got '{instruction} {'"),
    ],
)
def test_config_errors(settings, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        SupervisedConfig(**settings)
