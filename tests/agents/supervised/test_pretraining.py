import json
import math
import random
import re

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lm_gym.agents import PretrainConfig, pretrain
from lm_gym.agents.supervised.documents import encode_documents, read_documents, split_documents
from lm_gym.agents.supervised.loop import RunWatcher
from lm_gym.errors import ConfigError, DataError, OutputExistsError

SMALL = {"n_layer": 2, "n_embd": 32, "n_head": 2, "context": 32, "vocab_size": 280, "batch_size": 4}


def corpus(count=60):
    """Sentences with a rule to learn: "the <animal> eats <its food>"."""
    rng = random.Random(0)
    food = {"cat": "fish", "dog": "bones", "cow": "corn", "ant": "crumbs"}
    lines = [f"the {a} eats {food[a]} and the {b} eats {food[b]}." for a in food for b in food]
    return "\n\n".join(rng.choice(lines) for _ in range(count))


def weights(folder):
    return torch.cat([p.detach().flatten() for p in AutoModelForCausalLM.from_pretrained(folder).parameters()])


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_learns_saves_and_measures_what_it_says(tmp_path, architecture):
    config = PretrainConfig(
        **SMALL, architecture=architecture, max_steps=200, learning_rate=5e-3, validation_fraction=0.2, dropout=0.1
    )
    out = tmp_path / "model"
    result = pretrain(corpus(), out, config)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert model.config.model_type == architecture
    assert result.vocab_size == len(tokenizer) == model.config.vocab_size == 280
    assert result.parameters == model.num_parameters()
    assert result.validation_loss < 1.0, "a uniform guess is ln 280 = 5.6"
    assert result.tokens_per_second > 0
    assert tokenizer.is_fast

    # Dropout is for this training only.
    assert not [
        key for key, value in model.config.to_dict().items() if "drop" in key and value and "summary" not in key
    ]

    # The held-out loss by hand: blocks of 32 that share one token.
    _, held_out = split_documents(read_documents(corpus()), validation_fraction=0.2, seed=0)
    ids = torch.from_numpy(encode_documents(held_out, tokenizer)).long()
    nats = 0.0
    with torch.no_grad():
        for start in range(0, len(ids) - 1, 31):
            block = ids[start : start + 32]
            log_probs = model(block.unsqueeze(0)).logits[0].double().log_softmax(-1)
            nats -= float(log_probs[:-1].gather(1, block[1:, None]).sum())
    assert result.validation_loss == pytest.approx(nats / (len(ids) - 1), rel=1e-4)
    size = sum(len(document.parts[0].encode()) for document in held_out)
    assert result.bits_per_byte == pytest.approx(nats / math.log(2) / size * len(ids) / (len(ids) - 1), rel=1e-4)

    prompt = tokenizer("the cow eats", return_tensors="pt")
    text = tokenizer.decode(model.generate(**prompt, do_sample=False, max_new_tokens=20)[0])
    assert text.startswith("the cow eats corn")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
    assert not (out / "checkpoints").exists()


def test_prompts_and_responses_become_documents(tmp_path):
    rows = [{"prompt": f"q{i}: ", "responses": [f"yes {i}", f"no {i}"]} for i in range(10)]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    result = pretrain(path, tmp_path / "m", PretrainConfig(**SMALL, max_steps=1, validation_fraction=0))
    assert result.validation_loss is None
    assert result.bits_per_byte is None
    assert result.steps == 1


def test_resume_after_a_kill_equals_the_run_without_one(tmp_path, monkeypatch):
    config = PretrainConfig(**SMALL, max_steps=10, checkpoint_every=4, dropout=0.1)
    expected = pretrain(corpus(), tmp_path / "whole", config)
    original = RunWatcher.on_step_end

    def kill(self, args, state, control, **kwargs):
        original(self, args, state, control, **kwargs)
        if state.global_step == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunWatcher, "on_step_end", kill)
    with pytest.raises(KeyboardInterrupt):
        pretrain(corpus(), tmp_path / "killed", config)
    monkeypatch.undo()
    with pytest.raises(OutputExistsError, match="holds a run"):
        pretrain(corpus(), tmp_path / "killed", config)
    result = pretrain(corpus(), tmp_path / "killed", config, resume=True)
    assert torch.equal(weights(tmp_path / "killed"), weights(tmp_path / "whole"))
    assert result.validation_loss == expected.validation_loss
    with pytest.raises(ConfigError, match=r"differ: .*input text .*, input tokenizer "):
        pretrain("other text", tmp_path / "killed", config, resume=True)


def test_the_same_call_gives_the_same_weights(tmp_path):
    results = [pretrain(corpus(), tmp_path / name, PretrainConfig(**SMALL, epochs=3)) for name in "ab"]
    assert torch.equal(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert results[0].epochs == 3.0
    lines = [json.loads(line) for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == results[0].steps
    assert lines[-1]["epoch"] == results[0].epochs


def test_bad_input_leaves_no_folder(tmp_path):
    with pytest.raises(DataError, match="one text of one character cannot be split"):
        pretrain("x", tmp_path / "m")
    (tmp_path / "empty.txt").touch()
    with pytest.raises(DataError, match=r"empty\.txt: must hold some text"):
        pretrain(tmp_path / "empty.txt", tmp_path / "m")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocab_size": 256}, "PretrainConfig.vocab_size: must be a whole number >= 257, got 256"),
        ({"n_embd": 30, "n_head": 4}, "n_embd: must be a multiple of n_head = 4, got 30"),
        ({"architecture": "llama", "n_embd": 12, "n_head": 4}, "heads of even width for rotary positions, got 12"),
        ({"architecture": "mamba"}, 'architecture: must be "gpt2" or "llama", got \'mamba\''),
        ({"validation_fraction": 1.0}, "validation_fraction: must be a finite number in [0, 1), got 1.0"),
        ({"max_steps": 0}, "max_steps: must be None or a whole number >= 1, got 0"),
        ({"context": 1}, "context: must be a whole number >= 2, got 1"),
        ({"learning_rate": 0}, "learning_rate: must be a finite number > 0, got 0"),
    ],
)
def test_config_errors(settings, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        PretrainConfig(**settings)


def test_real_text(data_folder, tmp_path):
    sources = [data_folder / "shakespeare.txt", data_folder / "arguments" / "rankings.jsonl"]
    documents = read_documents(sources)
    train, held_out = split_documents(documents, validation_fraction=0.05, seed=0)
    held_out_bytes = sum(document.size_bytes() for document in held_out)
    assert held_out_bytes / sum(document.size_bytes() for document in documents) == pytest.approx(0.05, abs=0.02)
    prompts = {document.group for document in train if len(document.parts) == 2}
    assert not prompts & {document.group for document in held_out}
    result = pretrain(sources, tmp_path / "m", PretrainConfig(**SMALL, max_steps=2, validation_fraction=0.01))
    assert result.train_tokens > 500_000
    assert result.validation_loss < math.log(280)
