"""The algorithms by the names that a command line or a file of settings gives them."""

from __future__ import annotations

from ..update.learning import LearningAgent
from .a2c import A2C
from .best_of_n import RejectionSampling
from .closed_form import VIMPO, AStarPO
from .dapo import DAPO
from .dpo import DPO
from .grpo import CISPO, GRPO, GSPO, DrGRPO
from .ppo import PPO, VinePPO
from .reinforce import REINFORCE, RLOO, REINFORCEPlusPlus, ReMax
from .soft_q import SoftQ

__all__ = ["ALGORITHMS"]

ALGORITHMS: dict[str, type[LearningAgent]] = {
    "ppo": PPO,
    "a2c": A2C,
    "vine-ppo": VinePPO,
    "reinforce": REINFORCE,
    "reinforce++": REINFORCEPlusPlus,
    "remax": ReMax,
    "rloo": RLOO,
    "grpo": GRPO,
    "dr-grpo": DrGRPO,
    "dapo": DAPO,
    "gspo": GSPO,
    "cispo": CISPO,
    "soft-q": SoftQ,
    "a-star-po": AStarPO,
    "vimpo": VIMPO,
    "dpo": DPO,
    "rejection": RejectionSampling,
}
"""Name -> class; the settings are its ``config_type``."""
