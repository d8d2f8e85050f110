"""Policies with an adapter: one copy of the model, which is its own reference; saved as updates on a base."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from lm_gym import LoraSettings, Reference, TextGenerationVectorEnv, TextTask, load_language_model
from lm_gym.agents import PPO, LanguageModelPolicy, PPOConfig, SoftQ, SoftQConfig, train
from lm_gym.envs.evaluation import evaluate
from lm_gym.errors import ArtifactError, ConfigError, ModelLoadError, UnsupportedModelError
from lm_gym.models.language_model import LanguageModel, own_copy
from lm_gym.models.lora import ADAPTER_CONFIG, BASE_RECORD, add_adapter
from lm_gym.runs.states import split_state
from lm_gym.testing import tiny_language_model

pytest.importorskip("peft")
PROMPTS = ("a b c", "d", "e f g h i", "b b")
LORA = LoraSettings(rank=2)
CONFIG = PPOConfig(episodes_per_iteration=8, minibatches=2, learning_rate=3e-2)
RULES: dict[str, Any] = {"action_mode": "token_and_log_prob", "max_new_tokens": 6, "kl_coef": 0.1, "temperature": 0.7}
MakeEnv = Callable[..., TextGenerationVectorEnv]


def letter_score(prompts: list[str], completions: list[str]) -> list[float]:
    return [sum(1.0 if word[0] < "h" else -1.0 for word in text.split()) / 4 for text in completions]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of tiny base models by architecture, each written once."""

    def folder(architecture: Any) -> Path:
        path = tmp_path_factory.getbasetemp() / f"base-{architecture}"
        if not path.is_dir():
            LanguageModelPolicy(own_copy(tiny_language_model(architecture))).save_pretrained(path)
        return path

    return folder


def env_of(reference: Reference, num_envs: int = 4, **changes: Any) -> TextGenerationVectorEnv:
    env = TextGenerationVectorEnv(TextTask.of(reference, PROMPTS, **RULES | changes), letter_score, num_envs=num_envs)
    env.reset(seed=0)
    return env


def policy_of(base: str | Path) -> LanguageModelPolicy:
    return LanguageModelPolicy.from_pretrained(base, lora=LORA, device="cpu")


def second_copy(base: Path) -> Reference:
    """A plain model of its own, with its weights in memory."""
    return Reference(own_copy(load_language_model(base, device="cpu")))


def stepped(env: TextGenerationVectorEnv, policy: LanguageModelPolicy, steps: int = 12) -> np.ndarray:
    """Rewards of some steps, resets included. Shape: (steps, B)."""
    observation, _ = env.reset(seed=3)
    rewards = []
    for _ in range(steps):
        tokens, log_probs = policy.act(observation, env.sampling)
        observation, paid, *_ = env.step({"token": tokens, "log_prob": log_probs})
        rewards.append(paid)
    return np.array(rewards)


def same(first: Any, second: Any) -> bool:
    """Two states of an agent, tensors and plain values."""
    (values, tensors), (others, other_tensors) = split_state(first), split_state(second)
    return values == others and all(torch.equal(one, other_tensors[name]) for name, one in tensors.items())


@pytest.mark.parametrize(
    ("architecture", "targets"),
    [
        ("gpt2", "all-linear"),
        ("bloom", "all-linear"),
        ("llama", ("q_proj", "lm_head")),  # a head with updates too
        ("t5", "all-linear"),
    ],
)
def test_the_reference_is_the_base_to_the_bit_before_and_after_training(
    architecture: str, targets: Any, bases: Callable[[str], Path]
) -> None:
    lora = LoraSettings(rank=2, target_modules=targets)
    policy = LanguageModelPolicy.from_pretrained(bases(architecture), lora=lora, device="cpu")
    shared, apart = policy.reference(), second_copy(bases(architecture))
    assert shared.model is policy.model
    digest = shared.digest()
    assert digest == apart.digest()
    env, agent = env_of(shared), PPO(policy, CONFIG)
    for _ in range(2):
        episodes = env.rollout(policy, 8)
        assert np.array_equal(shared.log_probs(episodes), apart.log_probs(episodes))
        agent.learn(env)
    assert env.rollout(policy, 16).kl.sum() > 0.5  # type: ignore[union-attr]  # it has left the reference
    assert shared.digest() == digest
    paid = [
        stepped(env_of(one, seed=5), LanguageModelPolicy(own_copy(policy.language_model))) for one in (shared, apart)
    ]
    assert np.array_equal(*paid)


def test_ppo_is_paid_the_same_token_by_token_as_with_a_second_copy(bases: Callable[[str], Path]) -> None:
    runs = []
    for shares in (True, False):
        policy = policy_of(bases("gpt2"))
        env = env_of(policy.reference() if shares else second_copy(bases("gpt2")))
        agent = PPO(policy, CONFIG)
        paid = []
        for _ in range(3):
            agent.learn(env)
            assert agent.last_episodes is not None
            paid.append(agent.last_episodes.rewards)
        runs.append((paid, evaluate(policy, env, ["a", "b c"]).kl, policy.state_dict()))
    assert all(np.array_equal(first, second) for first, second in zip(runs[0][0], runs[1][0], strict=True))
    assert runs[0][1] == runs[1][1] > 0.01
    assert same(runs[0][2], runs[1][2])


def test_gymnasium_makes_an_environment_on_the_shared_model(bases: Callable[[str], Path]) -> None:
    policy = policy_of(bases("gpt2"))
    rules = RULES | {"prompts": list(PROMPTS), "reward_model": letter_score, "model": policy.reference()}
    single = gymnasium.make("lm_gym/TextGeneration-v0", **rules)
    several = gymnasium.make_vec("lm_gym/TextGeneration-v0", num_envs=2, **rules)
    for env in (single.unwrapped, several.unwrapped):
        assert env.reference.model is policy.model  # type: ignore[union-attr]
    assert PPO(policy, CONFIG).learn(several)["kl"] == pytest.approx(0.0, abs=1e-4)


def test_exactly_the_updates_and_the_value_head_learn(bases: Callable[[str], Path]) -> None:
    policy = policy_of(bases("gpt2"))
    layers = [part for part in policy.model.modules() if hasattr(part, "lora_A")]
    updates = sum(2 * (layer.in_features + layer.out_features) for layer in layers)
    head = policy.language_model.hidden_size + 1
    assert sum(weight.numel() for weight in policy.parameters()) == updates + head
    assert sum(weight.numel() for weight in policy.state_dict()["model"].values()) == updates  # the base is not copied


def test_weights_that_learn_are_no_references(bases: Callable[[str], Path]) -> None:
    policy = policy_of(bases("gpt2"))
    env = env_of(policy.reference())
    policy.model.requires_grad_(True)  # the base learns too now
    for agent in (PPO(policy, CONFIG), SoftQ(policy, SoftQConfig(episodes_per_iteration=8))):
        with pytest.raises(ConfigError, match=r"policy and reference must not share weights that learn.* lora="):
            agent.learn(env)
    own = policy.reference().language_model.model
    assert own is not policy.model  # a reference of a base that learns is a copy of it as it is now
    assert not any("lora_" in name for name, _ in own.named_parameters())
    model = own_copy(tiny_language_model())
    shared = Reference(model)
    adapter = add_adapter(shared.model, LORA, task="CAUSAL_LM", base=None)  # under the feet of the reference
    policy = LanguageModelPolicy(LanguageModel(shared.model, model.tokenizer, adapter=adapter))
    with pytest.raises(ConfigError, match="must not share weights that learn"):
        PPO(policy, CONFIG).learn(env_of(shared))


def test_a_plain_policy_is_no_reference_and_not_merged(make_env: MakeEnv) -> None:
    policy = LanguageModelPolicy(own_copy(make_env().reference.language_model))  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="must have an adapter to be its own reference without it, and has none"):
        policy.reference()
    with pytest.raises(ConfigError, match="must have an adapter to be merged"):
        policy.merged()


def test_an_agent_is_saved_and_learns_on_to_the_bit(bases: Callable[[str], Path], tmp_path: Path) -> None:
    policy = policy_of(bases("gpt2"))
    env, agent = env_of(policy.reference()), PPO(policy, CONFIG)
    agent.learn(env)
    agent.save(tmp_path / "agent")
    state = env.state_dict()
    again = PPO.load(tmp_path / "agent", device="cpu")
    other = env_of(again.policy.reference())
    other.load_state_dict(state)
    first, second = agent.learn(env), again.learn(other)
    assert first["policy_loss"] == second["policy_loss"]
    assert same(policy.state_dict(), again.policy.state_dict())
    names = {path.name for path in (tmp_path / "agent" / "policy").iterdir()}
    assert "model.safetensors" not in names
    assert {ADAPTER_CONFIG, BASE_RECORD, "critic.safetensors"} <= names


def test_soft_q_keeps_a_slow_copy_of_an_adapter(bases: Callable[[str], Path]) -> None:
    policy = policy_of(bases("gpt2"))
    agent = SoftQ(policy, SoftQConfig(episodes_per_iteration=8, updates=2, learning_rate=1e-2))
    before = {name: one.clone() for name, one in agent.state_dict()["slow"]["model"].items()}
    agent.learn(env_of(policy.reference()))
    after = agent.state_dict()["slow"]["model"]
    assert all(name.count("lora_") for name in after)
    assert any(not torch.equal(before[name], after[name]) for name in after)


def test_a_run_is_resumed_to_the_bit(bases: Callable[[str], Path], tmp_path: Path) -> None:
    def run(folder: str, *, stop: int | None = None, resume: bool = False) -> LanguageModelPolicy:
        policy = policy_of(bases("gpt2"))
        agent = PPO(policy, CONFIG)

        class Stopping:
            def on_start(self, run: Any) -> None: ...
            def on_iteration(self, run: Any) -> None:
                if run.iteration + 1 == stop:
                    run.stop("enough")

            def on_end(self, run: Any) -> None: ...

        settings: dict[str, Any] = {"iterations": 2, "checkpoint_every": 1, "tensorboard": False, "progress": False}
        settings |= {"run_dir": tmp_path / folder, "callbacks": [Stopping()], "eval_prompts": ["a b"], "eval_every": 2}
        train(agent, env_of(policy.reference()), resume=resume, **settings)
        return policy

    whole = run("whole")
    run("parts", stop=1)
    checkpoint = tmp_path / "parts" / "checkpoints" / "checkpoint-1" / "policy"
    assert (checkpoint / BASE_RECORD).is_file()
    assert same(run("parts", resume=True).state_dict(), whole.state_dict())
    finished = tmp_path / "whole" / "policy"
    assert same(LanguageModelPolicy.from_pretrained(finished, device="cpu").state_dict(), whole.state_dict())
    assert (tmp_path / "whole" / "best" / BASE_RECORD).is_file()
    # Another adapter is another run, though its first updates have the same sizes.
    with pytest.raises(ConfigError, match=r"these differ: .*input policy .*, lora\.alpha \(was 32\.0, is 8\.0\)"):
        train(
            PPO(LanguageModelPolicy.from_pretrained(bases("gpt2"), lora=LoraSettings(rank=2, alpha=8.0)), CONFIG),
            env_of(whole.reference()),
            iterations=2,
            run_dir=tmp_path / "whole",
            resume=True,
            progress=False,
        )


def trained(base: Path, folder: Path) -> LanguageModelPolicy:
    policy = policy_of(base)
    PPO(policy, CONFIG).learn(env_of(policy.reference()))
    policy.save_pretrained(folder)
    return policy


@pytest.mark.parametrize("architecture", ["gpt2", "t5"])
def test_an_adapters_folder_stands_for_the_merged_model(
    architecture: str, bases: Callable[[str], Path], tmp_path: Path
) -> None:
    policy = trained(bases(architecture), tmp_path / "policy")
    episodes = env_of(policy.reference()).rollout(policy, 6)
    with torch.no_grad():
        own = policy.log_probs_and_values(episodes)
        merged = policy.merged()
        found = merged.log_probs_and_values(episodes)
        torch.testing.assert_close(found.log_probs, own.log_probs, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.values, own.values, rtol=1e-4, atol=1e-5)
        assert torch.equal(policy.log_probs_and_values(episodes).log_probs, own.log_probs)  # it is left as it was
        loaded = load_language_model(tmp_path / "policy", device="cpu")
        assert not any("lora_" in name for name, _ in loaded.model.named_parameters())
        again = LanguageModelPolicy(own_copy(loaded)).log_probs_and_values(episodes)
        assert torch.equal(again.log_probs, found.log_probs)
        merged.save_pretrained(tmp_path / "merged")
        kind = AutoModelForSeq2SeqLM if architecture == "t5" else AutoModelForCausalLM
        plain = kind.from_pretrained(tmp_path / "merged", dtype=torch.float32)
        ids = torch.tensor([[3, 4, 5]])
        asked = {"input_ids": ids} | ({"decoder_input_ids": ids} if architecture == "t5" else {})
        assert torch.equal(plain(**asked).logits, merged.model(**asked).logits)
        # With peft beside it, plain transformers puts the adapter on its base too.
        both = kind.from_pretrained(tmp_path / "policy", dtype=torch.float32)
        assert torch.equal(both(**asked).logits, policy.model(**asked).logits)


def test_an_adapter_of_another_tool_is_taken(bases: Callable[[str], Path], tmp_path: Path) -> None:
    policy = trained(bases("llama"), tmp_path / "policy")
    assert policy.language_model.adapter is not None
    policy.language_model.adapter.save(tmp_path / "foreign")
    policy.tokenizer.save_pretrained(tmp_path / "foreign")
    again = LanguageModelPolicy.from_pretrained(tmp_path / "foreign", device="cpu")
    assert same(again.state_dict()["model"], policy.state_dict()["model"])
    assert not again.value_head.weight.any()


def test_an_adapter_on_another_base_is_refused(bases: Callable[[str], Path], tmp_path: Path) -> None:
    policy = trained(bases("gpt2"), tmp_path / "policy")
    record = json.loads((tmp_path / "policy" / BASE_RECORD).read_text())
    assert record["base"] == str(bases("gpt2").resolve())

    def named(base: object) -> None:
        (tmp_path / "policy" / BASE_RECORD).write_text(json.dumps(record | {"base": base}))

    other = LanguageModelPolicy(own_copy(tiny_language_model(seed=1))).save_pretrained(tmp_path / "other")
    for load in (
        lambda: LanguageModelPolicy.from_pretrained(tmp_path / "policy", device="cpu"),
        lambda: load_language_model(tmp_path / "policy", device="cpu"),
    ):
        named(str(other))
        with pytest.raises(
            ArtifactError, match=r"must be loaded on the base it was trained on, and the weights of .*oth"
        ):
            load()
        named(str(tmp_path / "gone"))
        with pytest.raises(ArtifactError, match=r"its base must be where it was, .*gone, .* into lm_gym_base\.json"):
            load()
        named(7)
        with pytest.raises(ArtifactError, match="must name its base and its fingerprint"):
            load()
    named(record["base"])
    policy.load_weights(tmp_path / "policy")
    with pytest.raises(ArtifactError, match=r"the weights of .* have changed since"):
        policy_of(other).load_weights(tmp_path / "policy")


def test_weights_of_another_kind_of_policy_are_refused(bases: Callable[[str], Path], tmp_path: Path) -> None:
    policy, base = trained(bases("gpt2"), tmp_path / "policy"), bases("gpt2")
    with pytest.raises(ArtifactError, match="must hold an adapter, as the policy that takes its weights does, and"):
        policy.load_weights(base)
    with pytest.raises(ArtifactError, match="must hold a whole model, as the policy that takes its weights does, and"):
        LanguageModelPolicy.from_pretrained(base, device="cpu").load_weights(tmp_path / "policy")
    wider = LanguageModelPolicy.from_pretrained(base, lora=LoraSettings(rank=3), device="cpu")
    with pytest.raises(ArtifactError, match=r"must have the settings of the adapter that takes .* its r is 2, not 3"):
        wider.load_weights(tmp_path / "policy")
    with pytest.raises(
        ConfigError, match=r"must be given the state of a policy of the same .* of shape \(2, \d+\), not \(3"
    ):
        wider.load_state_dict(policy.state_dict())
    config = tmp_path / "policy" / ADAPTER_CONFIG
    config.write_text(config.read_text().replace('"lora_alpha": 32', '"lora_alpha": 16'))
    with pytest.raises(ArtifactError, match=r"adapter_config.json: must have the \d+ bytes that it was saved with"):
        LanguageModelPolicy.from_pretrained(tmp_path / "policy", device="cpu")


def test_settings_that_cannot_work_are_refused(bases: Callable[[str], Path], tmp_path: Path) -> None:
    base, load = bases("gpt2"), LanguageModelPolicy.from_pretrained
    with pytest.raises(ConfigError, match=r"LoraSettings\.target_modules: must name layers of the model, got 'q_proj'"):
        load(base, lora=LoraSettings(target_modules="q_proj"))
    with pytest.raises(ConfigError, match=r"lora\.dropout must be 0, since a policy has no dropout .*, got 0\.1"):
        load(base, lora=LoraSettings(dropout=0.1))
    with pytest.raises(ConfigError, match="separate_critic must be False under an adapter"):
        load(base, lora=LORA, separate_critic=True)
    with pytest.raises(ConfigError, match="lora: must be"):
        load(base, lora=8)  # type: ignore[arg-type]
    trained(base, tmp_path / "policy")
    with pytest.raises(ConfigError, match="has an adapter already, and gets no second one; leave lora out to train"):
        load(tmp_path / "policy", lora=LORA)


def test_an_encoder_is_no_policy(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForMaskedLM

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertForMaskedLM(BertConfig(vocab_size=16, **sizes)).save_pretrained(tmp_path)
    tiny_language_model().tokenizer.save_pretrained(tmp_path)
    with pytest.raises((UnsupportedModelError, ModelLoadError), match="BertLMHeadModel"):
        LanguageModelPolicy.from_pretrained(tmp_path, lora=LORA, device="cpu")


def test_updates_without_their_adapter_are_refused(make_env: MakeEnv, tmp_path: Path) -> None:
    model = own_copy(make_env().reference.language_model)  # type: ignore[union-attr]
    adapter = add_adapter(model.model, LORA, task="CAUSAL_LM", base=None)
    with pytest.raises(UnsupportedModelError, match="has low-rank updates on it, whose adapter must come with it"):
        LanguageModelPolicy(model)
    policy = LanguageModelPolicy(LanguageModel(model.model, model.tokenizer, adapter=adapter))
    env = env_of(policy.reference())
    with pytest.raises(ConfigError, match="the base of its adapter must have a path or hub id to be saved"):
        train(PPO(policy, CONFIG), env, iterations=1, run_dir=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
    train(PPO(policy, CONFIG), env, iterations=1, progress=False)
    assert policy.merged().save_pretrained(tmp_path / "policy").is_dir()
