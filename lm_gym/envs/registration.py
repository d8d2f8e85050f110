"""The environment ids, and the factories that turn light handles into environments.

``gym.make`` deep-copies its keyword arguments, so they are paths, hub ids, ``"module:factory"`` strings or callables;
weights are loaded here, once per process.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
from gymnasium.envs.registration import registry

if TYPE_CHECKING:
    from lm_gym.envs.env import TextGenerationEnv
    from lm_gym.envs.task import TextTask
    from lm_gym.envs.vector_env import TextGenerationVectorEnv
    from lm_gym.scoring.protocol import RewardModel

__all__ = ["register_environments"]

_HERE = "lm_gym.envs.registration"
_FACTORIES = {
    "TextGeneration-v0": "text_generation",
    "Reviews-v0": "reviews",
    "HumanFeedback-v0": "human_feedback",
}
_HUMAN = ("fallback", "kind", "overlap", "store", "timeout_seconds")


def register_environments() -> None:
    """Register every id with Gymnasium; a second call changes nothing."""
    for name, factory in _FACTORIES.items():
        if f"lm_gym/{name}" not in registry:
            gymnasium.register(
                f"lm_gym/{name}",
                entry_point=f"{_HERE}:make_{factory}",
                vector_entry_point=f"{_HERE}:make_{factory}_vector",
                nondeterministic=factory == "human_feedback",
            )


def make_text_generation(**kwargs: Any) -> TextGenerationEnv:
    """Environment of your model, prompts and reward model. Arguments: :func:`loaded_parts`, then those of the env."""
    from lm_gym.envs.env import TextGenerationEnv

    task, reward_model, options = loaded_parts(kwargs)
    return TextGenerationEnv(task, reward_model, **options)


def make_text_generation_vector(num_envs: int = 1, **kwargs: Any) -> TextGenerationVectorEnv:
    """:func:`make_text_generation` with ``num_envs`` rows."""
    from lm_gym.envs.vector_env import TextGenerationVectorEnv

    task, reward_model, options = loaded_parts(kwargs)
    return TextGenerationVectorEnv(task, reward_model, num_envs=num_envs, **options)


def make_reviews(**kwargs: Any) -> TextGenerationEnv:
    """The built-in offline task; every part may be replaced by a keyword argument."""
    return make_text_generation(**_with_reviews(kwargs))


def make_reviews_vector(num_envs: int = 1, **kwargs: Any) -> TextGenerationVectorEnv:
    """:func:`make_reviews` with ``num_envs`` rows."""
    return make_text_generation_vector(num_envs, **_with_reviews(kwargs))


def make_human_feedback(**kwargs: Any) -> TextGenerationEnv:
    """A person is the reward; the rest is as in :func:`make_reviews`, and may be replaced in the same way.

    Args: kwargs: ``store``, ``kind``, ``timeout_seconds``, ``fallback`` and ``overlap`` of
        ``lm_gym.reward_models.human.HumanRewardModel``, beside the arguments of :func:`make_reviews`.
    """
    return make_reviews(**_with_people(kwargs))


def make_human_feedback_vector(num_envs: int = 1, **kwargs: Any) -> TextGenerationVectorEnv:
    """:func:`make_human_feedback` with ``num_envs`` rows."""
    return make_reviews_vector(num_envs, **_with_people(kwargs))


def _with_people(kwargs: dict[str, Any]) -> dict[str, Any]:
    from lm_gym.errors import ConfigError
    from lm_gym.scoring.handles import registered_reward_model

    rest = dict(kwargs)
    if "reward_model" in rest:
        raise ConfigError("lm_gym/HumanFeedback-v0: people are its reward model; name another one in lm_gym/Reviews-v0")
    options = {name: rest.pop(name) for name in _HUMAN if name in rest}
    return {**rest, "reward_model": registered_reward_model("human")(**options)}


def _with_reviews(kwargs: dict[str, Any]) -> dict[str, Any]:
    from lm_gym import reviews
    from lm_gym.assets import REVIEWS_LM

    defaults: dict[str, Any] = {
        "model": REVIEWS_LM,
        "prompts": reviews.prompts("train"),
        "reward_model": reviews.true_score,
    }
    return {**defaults, **kwargs}


def loaded_parts(kwargs: dict[str, Any]) -> tuple[TextTask, RewardModel | None, dict[str, Any]]:
    """Load what handles stand for, and check the parts against each other.

    Args: kwargs: of ``gym.make``: ``model`` (reference or its handle, None for no KL), ``reward_model`` (handle),
        ``tokenizer``, ``device``, ``dtype``, ``trust_remote_code``, the arguments of ``TextTask.of``, and those of the
        environment.

    Returns: task, reward model, and the environment's own arguments.
    """
    from lm_gym.envs.task import TextTask
    from lm_gym.models.language_model import load_language_model, load_tokenizer
    from lm_gym.models.reference import Reference
    from lm_gym.scoring.handles import load_reward_model

    parts = dict(kwargs)
    options: dict[str, Any] = {
        key: parts.pop(key) for key in ("autoreset_mode", "info_keys", "render_mode") if key in parts
    }
    loading = {key: parts.pop(key) for key in ("device", "dtype", "trust_remote_code") if key in parts}
    model, tokenizer = parts.pop("model", None), parts.pop("tokenizer", None)
    reward_model = parts.pop("reward_model", None)
    if isinstance(model, Reference):
        parts["reference"] = model
    elif model is not None:
        parts["reference"] = Reference(load_language_model(model, tokenizer=tokenizer, **loading))
    else:
        parts["reference"] = None
        parts["tokenizer"] = load_tokenizer(tokenizer) if isinstance(tokenizer, str | Path) else tokenizer
    task = TextTask.of(**parts)
    return task, None if reward_model is None else load_reward_model(reward_model), options
