"""Folders of policies, agents and runs under an adapter, and the base that they need: never lost, and moved at will."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lm_gym import LoraSettings, TextGenerationVectorEnv, TextTask
from lm_gym.agents import PPO, Callback, LanguageModelPolicy, PPOConfig, TrainingRun, train
from lm_gym.errors import ArtifactError, ConfigError
from lm_gym.models.language_model import LanguageModel, load_language_model, own_copy
from lm_gym.models.lora import BASE_RECORD, add_adapter
from lm_gym.runs.folder import MARKER
from lm_gym.testing import tiny_language_model

pytest.importorskip("peft")
CONFIG = PPOConfig(episodes_per_iteration=4, minibatches=1, learning_rate=1e-2)
RULES: dict[str, Any] = {"action_mode": "token_and_log_prob", "max_new_tokens": 3, "kl_coef": 0.1}


def length_score(prompts: list[str], completions: list[str]) -> list[float]:
    return [float(len(text)) for text in completions]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole policy in a folder."""
    return LanguageModelPolicy(own_copy(tiny_language_model())).save_pretrained(tmp_path_factory.mktemp("saved") / "lm")


@pytest.fixture
def base(saved: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may lose."""
    return Path(shutil.copytree(saved, tmp_path / "base"))


def policy_of(base: str | Path, **settings: Any) -> LanguageModelPolicy:
    return LanguageModelPolicy.from_pretrained(base, lora=LoraSettings(**{"rank": 2} | settings), device="cpu")


def trained(policy: LanguageModelPolicy, run_dir: Path, **settings: Any) -> LanguageModelPolicy:
    agent = PPO(policy, CONFIG)
    env = TextGenerationVectorEnv(TextTask.of(policy.reference(), ("a b", "c"), **RULES), length_score, num_envs=2)
    given: dict[str, Any] = {"iterations": 2, "checkpoint_every": 1, "tensorboard": False, "progress": False}
    train(agent, env, run_dir=run_dir, **given | settings)
    return policy


class StopAfter(Callback):
    def __init__(self, iterations: int) -> None:
        self.iterations = iterations

    def on_iteration(self, run: TrainingRun) -> None:
        if run.iteration + 1 == self.iterations:
            run.stop("enough")


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("place", ["base", ".", "link", "base/../base"])
def test_an_adapter_is_not_saved_over_its_base(place: str, base: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(base)
    policy, before = policy_of(base), content(base)
    refused = r"must not take the place of the base of its adapter, without which .* and the base is .*/base; choose"
    with pytest.raises(ConfigError, match=refused):
        policy.save_pretrained(tmp_path / place)
    with pytest.raises(ConfigError, match=refused):
        PPO(policy, CONFIG).save(tmp_path / place)
    assert content(base) == before
    policy.save_pretrained(base / "inside")  # takes the place of nothing
    assert LanguageModelPolicy.from_pretrained(base / "inside", device="cpu").language_model.adapter is not None


def test_a_run_does_not_overwrite_the_base_of_its_adapter(base: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.move(trained(policy_of(base), run, iterations=1).save_pretrained(tmp_path / "other"), run / "other")
    shutil.copytree(base, run / "whole")
    policy, before = policy_of(run / "whole"), content(run)
    with pytest.raises(ConfigError, match=r"must not take the place of the base of its adapter.*/run/whole; choose"):
        trained(policy, run, overwrite=True)
    assert content(run) == before
    assert (run / MARKER).is_file()
    trained(policy_of(base), run, overwrite=True, iterations=1)
    assert not (run / "whole").exists()


def test_an_adapter_on_a_model_that_a_run_will_delete_is_refused(base: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    policy = trained(policy_of(base), run, callbacks=[StopAfter(1)])
    whole = policy.merged().save_pretrained(run / "checkpoints" / "checkpoint-1" / "whole")
    with pytest.raises(ConfigError, match=r"must stay where it is, and .*/whole lies in .*/run, a run that is not fin"):
        policy_of(whole)
    trained(policy_of(base), run, resume=True)
    assert not whole.exists()  # as was said
    policy.merged().save_pretrained(whole)
    assert policy_of(whole).language_model.adapter is not None  # a finished run deletes nothing


def moved_base(base: Path, error: str, tmp_path: Path) -> Path:
    """Do what the error says: write the new place of the base into the file that it names."""
    found = re.search(rf"adapter (\S+): its base must be where it was, {base}, .* into ({BASE_RECORD})", error)
    assert found is not None, error
    record = Path(found[1]) / found[2]
    record.write_text(record.read_text().replace(str(base), str(tmp_path / "moved")))
    return record


def test_a_run_goes_on_when_its_base_was_moved(base: Path, tmp_path: Path) -> None:
    whole = trained(policy_of(base), tmp_path / "whole")
    for folder in ("told", "silent"):
        trained(policy_of(base), tmp_path / folder, callbacks=[StopAfter(1)])
    base.rename(tmp_path / "moved")
    checkpoint = tmp_path / "told" / "checkpoints" / "checkpoint-1" / "policy"
    with pytest.raises(ArtifactError) as error:
        LanguageModelPolicy.from_pretrained(checkpoint, device="cpu")
    moved_base(base, str(error.value), tmp_path)
    LanguageModelPolicy.from_pretrained(checkpoint, device="cpu")
    done: list[int] = []

    class Counting(Callback):
        def on_iteration(self, run: TrainingRun) -> None:
            done.append(run.iteration)

    for folder in ("told", "silent"):  # the base that the policy was loaded on is the one that counts
        found = trained(policy_of(tmp_path / "moved"), tmp_path / folder, resume=True, callbacks=[Counting()])
        for name, tensor in found.state_dict()["model"].items():
            assert torch.equal(tensor, whole.state_dict()["model"][name])
        record = json.loads((tmp_path / folder / "policy" / BASE_RECORD).read_text())
        assert record["base"] == str(tmp_path / "moved")
    assert done == [1, 1]


def test_an_agent_is_loaded_when_its_base_was_moved(base: Path, tmp_path: Path) -> None:
    policy = policy_of(base)
    PPO(policy, CONFIG).save(tmp_path / "agent")
    base.rename(tmp_path / "moved")
    with pytest.raises(ArtifactError) as error:
        PPO.load(tmp_path / "agent", device="cpu")
    moved_base(base, str(error.value), tmp_path)
    again = PPO.load(tmp_path / "agent", device="cpu").policy
    assert again.language_model.adapter.base == str(tmp_path / "moved")  # type: ignore[union-attr]
    again.load_weights(tmp_path / "agent" / "policy")
    weights = tmp_path / "agent" / "policy" / "critic.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])  # every other file is checked as ever
    with pytest.raises(ArtifactError, match=r"critic\.safetensors: must have the \d+ bytes that it was saved with"):
        PPO.load(tmp_path / "agent", device="cpu")


def test_a_base_that_is_code_is_neither_written_nor_run(base: Path, tmp_path: Path) -> None:
    policy = policy_of(base)
    policy.save_pretrained(tmp_path / "policy")
    record = tmp_path / "policy" / BASE_RECORD
    record.write_text(json.dumps(json.loads(record.read_text()) | {"base": "lm_gym.testing:tiny_language_model"}))
    for load in (LanguageModelPolicy.from_pretrained, load_language_model):
        with pytest.raises(ArtifactError, match=r"its base must be a folder, .* not code, which no artefact may name"):
            load(tmp_path / "policy", device="cpu")  # type: ignore[operator]


def test_the_model_without_its_adapter_is_no_policy(base: Path) -> None:
    language_model = policy_of(base).language_model
    with pytest.raises(ConfigError, match=r"must be a model that learns, and got the base\(\) of one, which stays"):
        LanguageModelPolicy(language_model.base())
    assert LanguageModelPolicy(own_copy(language_model.base())).language_model.adapter is None


def test_an_adapter_comes_with_the_model_that_it_is_on(base: Path) -> None:
    one, other = policy_of(base).language_model, policy_of(base).language_model
    with pytest.raises(ConfigError, match="its adapter must be on this very model, got one on another GPT2LMHeadModel"):
        LanguageModel(one.model, one.tokenizer, adapter=other.adapter)
    assert other.adapter is not None
    with pytest.raises(
        ConfigError, match=r"must be on its GPT2LMHeadModel, and was merged into it or taken off; take "
    ):
        LanguageModel(other.adapter.merged(), other.tokenizer, adapter=other.adapter)
    with pytest.raises(ConfigError, match="adapter: must be "):
        LanguageModel(one.model, one.tokenizer, adapter=LoraSettings())  # type: ignore[arg-type]
    model = own_copy(tiny_language_model("llama")).model
    adapter = add_adapter(model, LoraSettings(rank=2), task="CAUSAL_LM", base=None, trained_in_full=["lm_head"])
    with pytest.raises(ConfigError, match=r"LlamaForCausalLM: must be low-rank updates .* has modules_to_save = "):
        LanguageModel(model, one.tokenizer, adapter=adapter)


def test_an_adapter_on_a_policy_that_had_a_critic_of_its_own_has_none(base: Path, tmp_path: Path) -> None:
    whole = LanguageModelPolicy.from_pretrained(base, device="cpu", separate_critic=True, gradient_checkpointing=True)
    policy = policy_of(whole.save_pretrained(tmp_path / "separate"))
    assert policy.critic is None
    assert not policy.merged().gradient_checkpointing
    policy.gradient_checkpointing = True
    assert policy.merged().gradient_checkpointing


def test_what_would_not_be_in_the_folder_is_not_saved(base: Path, tmp_path: Path) -> None:
    policy = policy_of(base)
    policy.model.transformer.wpe.requires_grad_(True)
    for save in (policy.save_pretrained, PPO(policy, CONFIG).save):
        with pytest.raises(
            ConfigError, match=r"its adapter must stay as it is, and transformer\.wpe\.weight may learn"
        ):
            save(tmp_path / "policy")
    policy.model.transformer.wpe.requires_grad_(False)
    reference = policy.reference()
    episodes = TextGenerationVectorEnv(TextTask.of(reference, ("a b",), **RULES), length_score).rollout(policy, 2)
    assert policy.language_model.adapter is not None
    policy.language_model.adapter.merged()  # of the policy itself, in place
    with pytest.raises(ConfigError, match=r"must be on its GPT2LMHeadModel, and was merged into it or taken off"):
        policy.save_pretrained(tmp_path / "policy")
    with pytest.raises(ConfigError, match=r"must be on its GPT2LMHeadModel, and was merged into it or taken off"):
        reference.log_probs(episodes)  # it is the base no more
    assert not (tmp_path / "policy").exists()


KINDS: dict[str, Callable[[Path], LanguageModelPolicy]] = {
    "whole": lambda base: LanguageModelPolicy.from_pretrained(base, device="cpu"),
    "adapter": policy_of,
    "separate critic": lambda base: LanguageModelPolicy.from_pretrained(base, device="cpu", separate_critic=True),
    "wider": lambda base: LanguageModelPolicy(own_copy(tiny_language_model(vocab_size=17))),
}


@pytest.mark.parametrize(
    ("taking", "giving", "told"),
    [
        ("whole", "adapter", "its part 'model' lacks "),
        ("adapter", "whole", "its part 'model' lacks .*lora_A"),
        ("whole", "separate critic", r"its part 'critic' holds trunk\..*, which is none of them"),
        ("separate critic", "whole", r"its part 'critic' lacks trunk\."),
        ("whole", "wider", r"its part 'model' holds .* of shape \(17, 32\), not \(16, 32\)"),
    ],
)
def test_the_weights_of_another_kind_of_policy_change_nothing(
    taking: str, giving: str, told: str, base: Path, tmp_path: Path
) -> None:
    policy, other = KINDS[taking](base), KINDS[giving](base)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(1.0)
    before = {name: tensor.clone() for part in policy.state_dict().values() for name, tensor in part.items()}
    with pytest.raises(ConfigError, match=rf"must be given the state of a policy of the same model, .*{told}"):
        policy.load_state_dict(other.state_dict())
    for nonsense in ({}, None, {"model": policy.state_dict()["model"]}, {"model": {"x": 1}, "critic": {}}):
        with pytest.raises(ConfigError, match="must be given the state of a policy of the same model"):
            policy.load_state_dict(nonsense)  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match="must hold"):
        policy.load_weights(other.save_pretrained(tmp_path / "other"))
    after = {name: tensor for part in policy.state_dict().values() for name, tensor in part.items()}
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
