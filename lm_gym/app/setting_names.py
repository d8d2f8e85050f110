"""Other names of the commands' settings: those of Stable-Baselines3 and TRL, and those of earlier versions.

A name stands here only where it means the same thing. A word that means something else is refused with what to type.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["FOREIGN", "OTHER_NAMES"]

Names = Mapping[str, str]
_EVERYWHERE = {"lr": "learning_rate", "base": "model", "model_name_or_path": "model", "output_dir": "out"}
_PROMPTS = {"prompts": "data", "dataset_name": "data"}
_LENGTH = {"max_tokens": "max_new_tokens", "response_length": "max_new_tokens"}
_SAMPLING = _LENGTH | {"stop": "stop_strings"}
_KL = {"beta": "kl_coef", "init_kl_coef": "kl_coef"}
_PPO = {
    "eval_prompts": "eval_data",
    "ent_coef": "entropy_coef",
    "clip_range": "clip",
    "cliprange": "clip",
    "n_epochs": "epochs",
    "num_ppo_epochs": "epochs",
    "ppo_epochs": "epochs",
    "num_mini_batches": "minibatches",
    "lam": "gae_lambda",
    "num_generations": "samples_per_prompt",
    "rloo_k": "samples_per_prompt",
    "reward_model_path": "reward_model",
    "report_to": "tracker",
    "checkpoint_every": "save_every",
}
_FITTING = {"num_train_epochs": "epochs", "n_epochs": "epochs"}

OTHER_NAMES: Mapping[str, Names] = {
    "run": _EVERYWHERE | _LENGTH | _KL | {"rankings": "data"},
    "pretrain": {"lr": "learning_rate", "output_dir": "out", "max_steps": "steps"} | _FITTING,
    "sft": _EVERYWHERE | _FITTING | {"per_device_train_batch_size": "batch_size"},
    "reward train": _EVERYWHERE | _FITTING,
    "reward eval": {"reward_model": "model"},
    "train": _EVERYWHERE | _PROMPTS | _SAMPLING | _KL | _PPO,
    "generate": {"base": "model", "model_name_or_path": "model"} | _PROMPTS | _SAMPLING,
    "compare": {"prompts": "data"} | _SAMPLING,
}
"""By command: other name -> the setting's own."""

_ONE_TOKEN = "it counts single tokens, and a rollout here is of whole responses; say how many by --episodes"
FOREIGN: Mapping[str, Names] = {
    "train": {
        "n_steps": _ONE_TOKEN,
        "batch_size": "a batch is the --episodes of an iteration, and each pass cuts it into --minibatches",
        "total_timesteps": "a run is as long as --iterations, each of --episodes responses",
        "total_episodes": "a run is as long as --iterations, each of --episodes responses",
        "target_kl": "the KL to the reference that a controller holds is --kl-target, in nats per response",
    }
}
"""By command: a word of another library -> what stands in its place here."""
