"""A language model as the policy of SB3's own algorithms: what it computes, learns, stores, and refuses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize
from transformers import AutoModelForCausalLM

from lm_gym import LoraSettings, TextGenerationVectorEnv, evaluate
from lm_gym.agents import LanguageModelPolicy
from lm_gym.agents.sb3 import LanguageModelActorCriticPolicy, SB3VecEnv, TokenSpace
from lm_gym.agents.sb3.prefixes import PrefixStates, longest_prefixes, prefix_states
from lm_gym.config import SamplingConfig
from lm_gym.errors import ConfigError, ModelLoadError, UnsupportedModelError
from lm_gym.models.language_model import own_copy
from lm_gym.testing import tiny_language_model

Make = Callable[..., TextGenerationVectorEnv]
PPO_SETTINGS: dict[str, Any] = {"n_steps": 8, "batch_size": 16, "n_epochs": 2, "gamma": 1.0, "seed": 0, "device": "cpu"}


class Watch(BaseCallback):
    """Collects what was stored and paid at each step, and the metrics of each update."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs: list[tuple[float, float]] = []
        self.updates: list[dict[str, float]] = []

    def _on_step(self) -> bool:
        stored = self.locals["log_probs"].flatten().tolist()
        self.pairs += zip(stored, [info["log_prob"] for info in self.locals["infos"]], strict=True)
        return True

    def _on_rollout_start(self) -> None:
        self.updates.append(dict(self.logger.name_to_value))


def made(kind: Any, env: Any, folder: Path, **settings: Any) -> Any:
    agent = kind(LanguageModelActorCriticPolicy, env, policy_kwargs={"model": folder}, **settings)
    env.unwrapped.log_prob.bind(agent)
    return agent


def full_log_probs(model: Any, ids: np.ndarray, temperature: float) -> np.ndarray:
    """Of every next token after one prefix, by a plain forward pass of the model."""
    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(ids)[None]).logits[0, -1]
    return torch.log_softmax(logits.double() / temperature, -1).numpy()  # type: ignore[no-any-return]


def test_prefixes_that_others_hold_are_found() -> None:
    ids = np.array([[1, 2, 3, 9], [1, 2, 9, 9], [1, 3, 9, 9], [1, 2, 3, 4], [2, 2, 2, 9], [1, 2, 9, 9], [1, 2, 2, 9]])
    lengths = np.array([3, 2, 2, 4, 3, 2, 3])
    rows, holder = longest_prefixes(ids, lengths)
    for row, held_by in enumerate(rows[holder]):
        assert ids[held_by, : lengths[row]].tolist() == ids[row, : lengths[row]].tolist()
    assert sorted(rows) == [2, 3, 4, 6]


@pytest.mark.parametrize("max_batch_tokens", [8, 20, 1000])
def test_a_prefix_ends_in_the_state_of_its_own_pass(max_batch_tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it shares a pass with others, of several lengths, and whatever stands behind it."""
    monkeypatch.setattr("lm_gym.agents.sb3.prefixes.MAX_BATCH_TOKENS", max_batch_tokens)
    model = tiny_language_model()
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 16, (12, 9))
    ids[4:8] = ids[3]
    lengths = np.array([9, 1, 4, 9, 2, 5, 8, 5, 3, 3, 6, 7])
    found = prefix_states(model, ids, lengths)
    for row, length in enumerate(lengths):
        expected = model.hidden(torch.from_numpy(ids[row : row + 1, :length]))[0, -1]
        torch.testing.assert_close(found[row], expected)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("kind", [PPO, A2C])
def test_the_env_is_paid_the_log_probability_of_the_language_model(
    kind: Any, temperature: float, make_env: Make, model_folder: Path
) -> None:
    env = SB3VecEnv(make_env(temperature=temperature))
    settings = PPO_SETTINGS if kind is PPO else {"n_steps": 8, "gamma": 1.0, "seed": 0, "device": "cpu"}
    agent = made(kind, env, model_folder, **settings)
    hf = agent.policy.language_model_policy.model
    env.seed(0)
    observation = env.reset()
    for _ in range(5):  # the start of every row, and steps from its cache
        tokens, _ = agent.predict(observation)
        prefixes = [row[: int(mask.sum())] for row, mask in zip(*observation.values(), strict=True)]
        expected = [full_log_probs(hf, ids, temperature)[token] for ids, token in zip(prefixes, tokens, strict=True)]
        observation, _, _, infos = env.step(tokens)
        np.testing.assert_allclose([info["log_prob"] for info in infos], expected, atol=1e-5)
    watch = Watch()
    agent.learn(4 * 8 * 3, callback=watch)
    np.testing.assert_allclose(*np.array(watch.pairs).T, atol=1e-5)
    assert len(watch.pairs) == 4 * 8 * 3


def test_acting_and_learning_see_the_same_policy(make_env: Make, model_folder: Path) -> None:
    """The first pass over fresh data: ratio 1, nothing clipped; after a step the cache of the old weights is gone."""
    env = SB3VecEnv(make_env())
    agent = made(PPO, env, model_folder, **PPO_SETTINGS | {"n_epochs": 1, "batch_size": 32, "learning_rate": 0.0})
    watch = Watch()
    agent.learn(64, callback=watch)
    assert watch.updates[1]["train/approx_kl"] == pytest.approx(0.0, abs=1e-9)
    assert watch.updates[1]["train/clip_fraction"] == 0.0
    agent.learning_rate = 1e-2
    agent._setup_lr_schedule()
    agent.learn(64)
    policy = agent.policy
    seen = {key: torch.from_numpy(value) for key, value in agent._last_obs.items()}
    with torch.no_grad():
        policy.set_training_mode(False)
        acted = policy.get_distribution(seen).distribution.logits
        values = policy.predict_values(seen)
        policy.set_training_mode(True)
        learned = policy.get_distribution(seen).distribution.logits
        torch.testing.assert_close(policy.predict_values(seen), values)
    torch.testing.assert_close(acted, learned)
    assert not policy.language_model_policy.model.training


def test_no_cache_outlives_the_weights_that_filled_it(make_env: Make, model_folder: Path) -> None:
    """A row goes on after its weights changed: by an update, by those of another agent, by hand."""
    env = SB3VecEnv(make_env())
    agent = made(PPO, env, model_folder, **PPO_SETTINGS | {"learning_rate": 1e-2})
    agent.learn(32)
    learned = {name: value.clone() for name, value in agent.policy.state_dict().items()}

    def by_an_update() -> None:
        with torch.enable_grad():
            agent.train()

    def by_another_state() -> None:
        agent.policy.load_state_dict(learned)

    def by_hand() -> None:
        with torch.no_grad():
            next(agent.policy.parameters()).mul_(0.5)
        agent.policy.refresh()

    def step_of(env: SB3VecEnv) -> dict[str, np.ndarray]:
        return env.step(np.full(4, 3))[0]  # no stop token: every row goes on

    env = SB3VecEnv(make_env(), lambda observation, tokens: np.zeros(len(tokens)))
    for change in (by_an_update, by_another_state, by_hand):
        before = {key: torch.from_numpy(value) for key, value in env.reset().items()}
        following = {key: torch.from_numpy(value) for key, value in step_of(env).items()}
        with torch.no_grad():
            agent.policy.set_training_mode(False)
            agent.policy.predict_values(before)
            change()
            agent.policy.set_training_mode(False)
            acted = agent.policy.predict_values(following)
            agent.policy.set_training_mode(True)
            torch.testing.assert_close(acted, agent.policy.predict_values(following))


def test_trunk_head_and_value_head_all_learn(make_env: Make, model_folder: Path) -> None:
    agent = made(PPO, SB3VecEnv(make_env()), model_folder, **PPO_SETTINGS)
    assert not agent.policy.value_net.weight.any()
    before = {name: weight.clone() for name, weight in agent.policy.named_parameters()}
    agent.learn(64)
    changed = {name for name, weight in agent.policy.named_parameters() if not weight.equal(before[name])}
    assert {"value_net.weight", "value_net.bias"} < changed
    assert {name.split(".")[0] for name in changed} == {"features_extractor", "value_net"}
    assert len(changed) == len(before)
    counted = sum(weight.numel() for group in agent.policy.optimizer.param_groups for weight in group["params"])
    assert counted == sum(weight.numel() for weight in agent.policy.language_model_policy.weights())


def test_a_saved_agent_is_restored_identically_and_goes_on(make_env: Make, model_folder: Path, tmp_path: Path) -> None:
    agent = made(PPO, SB3VecEnv(make_env(temperature=0.8)), model_folder, **PPO_SETTINGS)
    agent.learn(32)
    agent.save(tmp_path / "agent")
    agents = [agent, PPO.load(tmp_path / "agent", device="cpu")]
    for name, value in agents[1].policy.state_dict().items():
        assert value.equal(agent.policy.state_dict()[name])
    assert agents[1].policy.action_space.sampling.temperature == 0.8
    results = []
    for each in agents:
        env = SB3VecEnv(make_env(temperature=0.8))
        each.set_env(env, force_reset=True)
        each.set_random_seed(1)
        env.log_prob.bind(each)  # type: ignore[union-attr]
        each.learn(32)
        results.append([weight.detach().clone() for weight in each.policy.parameters()])
    assert all(one.equal(other) for one, other in zip(*results, strict=True))


def test_an_adapter_learns_alone_and_is_restored(make_env: Make, model_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    kwargs = {"model": model_folder, "lora": LoraSettings(rank=2)}
    env = SB3VecEnv(make_env())
    agent = PPO(LanguageModelActorCriticPolicy, env, policy_kwargs=kwargs, **PPO_SETTINGS | {"learning_rate": 1e-2})
    env.log_prob.bind(agent)  # type: ignore[union-attr]
    before = {name: weight.clone() for name, weight in agent.policy.named_parameters()}
    agent.learn(64)
    changed = {name for name, weight in agent.policy.named_parameters() if not weight.equal(before[name])}
    assert {name for name in changed if "lora_" not in name} == {"value_net.weight", "value_net.bias"}
    assert {name for name in before if "lora_" in name} <= changed
    agent.save(tmp_path / "agent")
    restored = PPO.load(tmp_path / "agent", device="cpu").policy
    policy = agent.policy.language_model_policy
    for name, value in restored.state_dict().items():
        assert value.equal(agent.policy.state_dict()[name])
    episodes = make_env().rollout(policy, 4)
    again = LanguageModelPolicy.from_pretrained(policy.save_pretrained(tmp_path / "policy"), device="cpu")
    with torch.no_grad():
        learned = policy.log_probs_and_values(episodes).log_probs
        for one in (restored.language_model_policy, again):
            assert one.log_probs_and_values(episodes).log_probs.equal(learned)
    assert not np.allclose(policy.reference().log_probs(episodes), learned.numpy())


def test_a_policy_is_saved_alone_and_its_model_for_transformers(
    make_env: Make, model_folder: Path, tmp_path: Path
) -> None:
    agent = made(PPO, SB3VecEnv(make_env()), model_folder, **PPO_SETTINGS)
    agent.learn(32)
    agent.policy.save(tmp_path / "policy.pt")
    loaded = LanguageModelActorCriticPolicy.load(tmp_path / "policy.pt", device="cpu")
    observation = {key: torch.from_numpy(value) for key, value in agent._last_obs.items()}
    for policy in (agent.policy, loaded):
        policy.set_training_mode(False)
    with torch.no_grad():
        torch.testing.assert_close(loaded.predict_values(observation), agent.policy.predict_values(observation))
        expected = agent.policy.get_distribution(observation).distribution.logits
        torch.testing.assert_close(loaded.get_distribution(observation).distribution.logits, expected)
    saved = agent.policy.language_model_policy.save_pretrained(tmp_path / "model")
    weights = AutoModelForCausalLM.from_pretrained(saved).state_dict()
    for name, value in agent.policy.language_model_policy.model.state_dict().items():
        assert weights[name].equal(value)


def test_callbacks_monitor_and_both_evaluations(make_env: Make, model_folder: Path, tmp_path: Path) -> None:
    env = VecNormalize(VecMonitor(SB3VecEnv(make_env())), norm_obs=False, gamma=1.0)
    agent = made(PPO, env, model_folder, **PPO_SETTINGS)
    held_out = SB3VecEnv(make_env(), env.unwrapped.log_prob)  # type: ignore[attr-defined]
    watched = EvalCallback(
        VecNormalize(VecMonitor(held_out), norm_obs=False, norm_reward=False, training=False),
        eval_freq=4,
        n_eval_episodes=4,
        best_model_save_path=str(tmp_path),
        verbose=0,
    )
    watch = Watch()
    agent.learn(64, callback=[watched, CheckpointCallback(8, str(tmp_path)), watch])
    np.testing.assert_allclose(*np.array(watch.pairs).T, atol=1e-5)
    assert np.isfinite(watched.best_mean_reward)
    assert (tmp_path / "best_model.zip").is_file()
    assert len(list(tmp_path.glob("rl_model_*.zip"))) == 2
    mean, deviation = evaluate_policy(agent, VecMonitor(held_out), n_eval_episodes=8, deterministic=False)
    assert np.isfinite([mean, deviation]).all()
    native = make_env()
    assert np.isfinite(evaluate(agent.policy.language_model_policy, native, ["a", "b"]).score)


@pytest.mark.parametrize("cut", [{"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.1}, {"min_new_tokens": 2}])
def test_truncated_sampling_is_refused(cut: dict[str, Any], make_env: Make, model_folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"must not truncate sampling .* train with lm_gym.agents.PPO"):
        made(PPO, SB3VecEnv(make_env(**cut)), model_folder, **PPO_SETTINGS)


def test_what_it_cannot_learn_in_is_refused(make_env: Make, model_folder: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"must act in an environment with action_mode=.token_and_log_prob., .*got action_mode='token'; make",
    ):
        PPO(
            LanguageModelActorCriticPolicy,
            SB3VecEnv(make_env(action_mode="token")),
            policy_kwargs={"model": model_folder},
        )
    space = spaces.Dict(input_ids=spaces.Box(0, 15, (4,), np.int64), attention_mask=spaces.Box(0, 1, (4,), np.int8))
    rules = SamplingConfig()
    with pytest.raises(ConfigError, match=r"needs the action space of SB3VecEnv, .* got Discrete\(16\); make the env"):
        LanguageModelActorCriticPolicy(space, spaces.Discrete(16), lambda _: 1.0, model_folder)
    with pytest.raises(UnsupportedModelError, match=r"vocabulary of 17 tokens, got 16; start policy and reference"):
        LanguageModelActorCriticPolicy(space, TokenSpace(17, rules, "token_and_log_prob"), lambda _: 1.0, model_folder)
    tokens = TokenSpace(16, rules, "token_and_log_prob")
    with pytest.raises(UnsupportedModelError, match=r"do not tell where a prompt ends, and is an encoder-decoder; tra"):
        PrefixStates(space, LanguageModelPolicy(own_copy(tiny_language_model("t5"))))
    with pytest.raises(UnsupportedModelError, match=r"must be float32, got torch.bfloat16, which rounds most steps"):
        LanguageModelActorCriticPolicy(space, tokens, lambda _: 1.0, model_folder, dtype="bfloat16")
    with pytest.raises(ConfigError, match="use_sde must be False, since noise is for continuous actions, got True"):
        LanguageModelActorCriticPolicy(space, tokens, lambda _: 1.0, model_folder, use_sde=True)
    with pytest.raises(ModelLoadError):
        LanguageModelActorCriticPolicy(space, tokens, lambda _: 1.0, model_folder / "nonesuch")
    with pytest.raises(ConfigError, match=r"name_or_path \(a model\)"):
        LanguageModelActorCriticPolicy(space, tokens, lambda _: 1.0, 3)  # type: ignore[arg-type]
