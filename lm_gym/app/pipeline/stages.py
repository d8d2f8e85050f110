"""The stages of the loop as plain functions of files and objects; the command line calls the same ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lm_gym.agents.algorithms.dpo import DPO, DPOConfig
from lm_gym.agents.algorithms.ppo import PPO
from lm_gym.agents.callbacks import Callback, ProgressDisplay
from lm_gym.agents.policy import LanguageModelPolicy
from lm_gym.agents.run_folder import POLICY
from lm_gym.agents.trackers import TrackioTracker, WandbTracker
from lm_gym.agents.training import EpisodeMetrics, TrainResult, train
from lm_gym.agents.update.learning import LearningAgent
from lm_gym.agents.update.optimizer import OptimizerConfig
from lm_gym.app.options import Tracker
from lm_gym.config import RewardConfig, SamplingConfig
from lm_gym.envs.task import TextTask
from lm_gym.envs.vector_env import TextGenerationVectorEnv
from lm_gym.episodes import Episodes
from lm_gym.kl_control import AdaptiveKL
from lm_gym.models.decoder import decoder_for
from lm_gym.models.generate import response_texts
from lm_gym.models.language_model import DType, load_language_model
from lm_gym.models.lora import LoraSettings, lasting_handle
from lm_gym.models.reference import Reference
from lm_gym.prompts import ScoredChat, load_prompts
from lm_gym.reward_models.judgements.annotator import Annotator, Question
from lm_gym.reward_models.judgements.record import Judgement
from lm_gym.reward_models.judgements.rows import load_judgements, save_judgements
from lm_gym.reward_models.judgements.splits import Split
from lm_gym.reward_models.measuring.evaluation import evaluate_reward_model
from lm_gym.reward_models.scalar.config import RewardTrainingConfig
from lm_gym.reward_models.scalar.preference import PreferenceRewardModel
from lm_gym.runs.signals import Interrupted
from lm_gym.scoring.adapters import RewardFunction
from lm_gym.scoring.protocol import RewardModel
from lm_gym.tools.files import read_json, write_json

__all__ = [
    "Answered",
    "answered",
    "check_prompts",
    "collect_judgements",
    "fit_reward_model",
    "load_policy",
    "make_env",
    "ppo_policy_folder",
    "read_judgements",
    "reference_for",
    "run_agent",
    "sample_answers",
    "winners",
]


def check_prompts(model: str | Path, prompts: Sequence[str], sampling: SamplingConfig) -> None:
    """Check, before anything is done, that every prompt leaves a language model room for a response.

    Raises:
        PromptError: a prompt is empty or too long.
    """
    language_model = load_language_model(model)
    limit = decoder_for(language_model).longest_prompt(sampling.max_new_tokens)
    load_prompts(list(prompts), language_model.tokenizer, max_prompt_tokens=limit)


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A prompt and what a language model answered to it."""

    prompt: str
    """Text that a reward model reads; the one that was continued, but for a chat that is scored in another form."""
    texts: tuple[str, ...]
    """The answers."""


def answered(
    model: str | Path,
    prompts: Sequence[str | Mapping[str, Any]],
    count: int,
    sampling: SamplingConfig,
    *,
    seed: int,
    system_prompt: str | None = None,
    scored_chat: ScoredChat = "template",
) -> list[Answered]:
    """Draw ``count`` answers to each prompt (a text, or a row with "prompt" or "messages") from a saved model.

    Args: system_prompt, scored_chat: see :func:`lm_gym.prompts.load_prompts`.

    Raises:
        PromptError: a prompt cannot be used, or is a chat and the model's tokenizer has no chat template.
    """
    language_model = load_language_model(model)
    asked: dict[str, Any] = {"system_prompt": system_prompt, "scored_chat": scored_chat}
    loaded = load_prompts(list(prompts), language_model.tokenizer, **asked).prompts
    repeated = [prompt.ids for prompt in loaded for _ in range(count)]
    texts = response_texts(language_model, repeated, replace(sampling, seed=seed))
    return [
        Answered(prompt=prompt.text, texts=tuple(texts[place * count : (place + 1) * count]))
        for place, prompt in enumerate(loaded)
    ]


def sample_answers(
    model: str | Path, prompts: Sequence[str], count: int, sampling: SamplingConfig, *, seed: int
) -> list[list[str]]:
    """Draw ``count`` answers to each prompt from a saved language model. Returns: texts, one list per prompt."""
    return [list(one.texts) for one in answered(model, prompts, count, sampling, seed=seed)]


def collect_judgements(
    model: str | Path,
    prompts: Sequence[str],
    annotator: Annotator,
    path: Path,
    *,
    answers: int,
    sampling: SamplingConfig,
    seed: int,
) -> list[Judgement]:
    """Draw answers, ask the annotator, write the judgements; prompts whose answers are all the same are left out."""
    drawn = sample_answers(model, prompts, answers, sampling, seed=seed)
    items = [Question.of(prompt, texts) for prompt, texts in zip(prompts, drawn, strict=True) if len(set(texts)) > 1]
    judgements = annotator.ask(items)
    save_judgements(path, judgements)
    return judgements


def fit_reward_model(
    folder: Path,
    base: str | Path,
    judgements: Sequence[Judgement],
    held_out: Sequence[Judgement],
    reference_samples: Sequence[tuple[str, str]],
    config: RewardTrainingConfig,
    *,
    group_of: Any = None,
    max_length: int | None = None,
    true_score: RewardFunction | None = None,
) -> PreferenceRewardModel:
    """Fit a preference model, then its normaliser on reference samples, and save it with its evaluation.

    Args:
        folder: gets ``model/`` and ``evaluation.json``.
        base: language model that the scalar head is put on.
        judgements: to fit to.
        held_out: to measure on.
        reference_samples: (prompt, response) of the reference, for the normaliser.
        config: of the fit.
        group_of: maps a prompt to the group that the standard error clusters on.
        max_length: longest text, in tokens.
        true_score: the hidden truth, if there is one; its own accuracy on the same pairs is the ceiling under the noise
            of the judgements.
    """
    model = PreferenceRewardModel.train(judgements, base, config, max_length=max_length, seed=config.seed)
    prompts, responses = zip(*reference_samples, strict=True)
    model.fit_normalizer(prompts, responses, fitted_on=f"{len(prompts)} samples of the reference model")
    model.save(folder / "model")
    grouping = {} if group_of is None else {"group_of": group_of}
    found = evaluate_reward_model(model, held_out, **grouping)
    written = {"trained_on": len(judgements), **found.to_json()}
    if true_score is not None:
        written["true_score_accuracy"] = evaluate_reward_model(true_score, held_out, **grouping).accuracy
    write_json(folder / "evaluation.json", written)
    return model


def load_policy(
    start: str | Path,
    *,
    lora_rank: int = 0,
    separate_critic: bool = False,
    gradient_checkpointing: bool = False,
    device: str = "auto",
    dtype: DType = "auto",
) -> LanguageModelPolicy:
    """The policy that a stage trains.

    Args:
        start: language model (or policy) to start from.
        lora_rank: of low-rank updates on it, which then stays as it is; 0 trains every weight, or the updates that a
            policy's folder has.
        separate_critic: give the value head a trunk of its own.
        gradient_checkpointing: less memory for slower updates.
        device, dtype: of the policy.
    """
    return LanguageModelPolicy.from_pretrained(
        start,
        lora=LoraSettings.of_rank(lora_rank),
        separate_critic=separate_critic or None,
        gradient_checkpointing=gradient_checkpointing,
        device=device,
        dtype=dtype,
    )


def reference_for(
    policy: LanguageModelPolicy, model: str | Path, *, device: str = "auto", dtype: DType = "auto"
) -> Reference:
    """The frozen model of a handle: the policy without its adapter where that is this model, else one of its own."""
    adapter = policy.language_model.adapter
    if adapter is not None and adapter.base is not None and adapter.base == lasting_handle(model):
        return policy.reference()
    return Reference(load_language_model(model, device=device, dtype=dtype))


def make_env(
    reference: Reference | str | Path,
    prompts: Sequence[str | Mapping[str, Any]],
    reward_model: RewardModel,
    *,
    reward: RewardConfig,
    sampling: SamplingConfig,
    num_envs: int = 1,
    system_prompt: str | None = None,
    scored_chat: ScoredChat = "template",
) -> TextGenerationVectorEnv:
    """The environment of a stage: frozen reference, prompts (texts, or rows with columns), reward model."""
    task = TextTask.of(
        reference if isinstance(reference, Reference) else Reference(load_language_model(reference)),
        list(prompts),
        action_mode="token_and_log_prob",
        reward=reward,
        sampling=sampling,
        system_prompt=system_prompt,
        scored_chat=scored_chat,
    )
    return TextGenerationVectorEnv(task, reward_model, num_envs=num_envs)


def run_agent(
    folder: Path,
    policy: LanguageModelPolicy,
    env: TextGenerationVectorEnv,
    config: OptimizerConfig,
    *,
    algorithm: type[LearningAgent] = PPO,
    pairs: Sequence[Mapping[str, str]] | None = None,
    iterations: int,
    eval_prompts: Sequence[str | Mapping[str, Any]],
    kl_target: float | None,
    kl_horizon: float,
    seed: int,
    resume: bool = False,
    overwrite: bool = False,
    episode_metrics: EpisodeMetrics | None = None,
    title: str | None = None,
    eval_every: int = 10,
    save_every: int = 10,
    tracker: Tracker = "auto",
    callbacks: Sequence[Callback] = (),
) -> TrainResult:
    """Train a policy.

    Args:
        folder: the run folder.
        policy: as :func:`load_policy` makes one.
        env: with the reference and the reward model.
        config: of the agent.
        algorithm: class of the agent.
        pairs: that DPO learns from, which then is the agent; None where the agent learns from its own responses.
        iterations: length of the run.
        eval_prompts: held out; the best policy is chosen on them.
        kl_target: nats per response for an adaptive coefficient, or None.
        kl_horizon: of that controller, in episodes.
        seed: of prompts and draws.
        resume: go on with the run in ``folder``, if there is one.
        overwrite: delete the run in ``folder`` first.
        episode_metrics: further metrics of each iteration's episodes.
        title: of the progress bar; None is the agent's name.
        eval_every, save_every: iterations between evaluations and between checkpoints.
        tracker: beside ``metrics.jsonl``.
        callbacks: follow the run.

    Raises:
        Interrupted: a signal stopped it; what was done is saved.
    """
    if pairs is not None and isinstance(config, DPOConfig):
        agent: LearningAgent = DPO(policy, config, pairs=pairs)
    else:
        agent = algorithm(policy, config)
    result = train(
        agent,
        env,
        iterations=iterations,
        run_dir=folder,
        eval_prompts=eval_prompts,
        adaptive_kl=None if kl_target is None else AdaptiveKL(target=kl_target, horizon=kl_horizon),
        eval_every=eval_every,
        checkpoint_every=save_every,
        callbacks=[ProgressDisplay(title or algorithm.__name__), *_hosted(tracker), *callbacks],
        tensorboard={"auto": None, "tensorboard": True}.get(tracker, False),
        episode_metrics=episode_metrics,
        seed=seed,
        resume=resume,
        overwrite=overwrite,
    )
    if result.stopped_by is not None:
        raise Interrupted(result.stopped_by)
    return result


def _hosted(tracker: Tracker) -> list[Callback]:
    """The trackers that keep metrics outside the run folder."""
    if tracker == "wandb":
        return [WandbTracker()]
    return [TrackioTracker()] if tracker == "trackio" else []


def ppo_policy_folder(run_dir: Path) -> Path:
    """The policy at the end of an RL run."""
    return run_dir / POLICY


def winners(judgements: Sequence[Judgement]) -> list[dict[str, str]]:
    """The best answer of every judgement that compares some, as rows for fine-tuning."""
    rows = []
    for one in judgements:
        best = one.texts[int(np.argmin(one.places or (1,)))]
        if one.compares and best.strip():
            rows.append({"prompt": one.prompt, "completion": best})
    return rows


def truth_metrics(true_score: Any) -> EpisodeMetrics | None:
    """The mean hidden score of an iteration's episodes, for the curves; None where there is no truth."""
    if true_score is None:
        return None

    def metrics(episodes: Episodes) -> dict[str, float]:
        return {"true_score": float(np.mean(true_score(list(episodes.prompts), list(episodes.responses))))}

    return metrics


def read_evaluation(folder: Path) -> dict[str, Any]:
    """``evaluation.json`` of a reward model's folder."""
    remedy = "delete the stage's folder, and go on with --resume"
    found: dict[str, Any] = read_json(folder / "evaluation.json", remedy=remedy)
    return found


def read_judgements(folder: Path) -> Split:
    """Training and held-out judgements of one round."""
    train, held_out = (load_judgements(folder / f"{name}.jsonl").judgements for name in ("train", "held_out"))
    return Split(train, held_out)
