"""The algorithms by the names that a command line or a file of settings gives them."""

from __future__ import annotations

from ..update.agent import SurrogateAgent
from .a2c import A2C
from .dapo import DAPO
from .grpo import CISPO, GRPO, GSPO, DrGRPO
from .ppo import PPO
from .reinforce import REINFORCE, RLOO, REINFORCEPlusPlus, ReMax
from .soft_q import SoftQ

__all__ = ["ALGORITHMS"]

ALGORITHMS: dict[str, type[SurrogateAgent] | type[SoftQ]] = {
    "ppo": PPO,
    "a2c": A2C,
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
}
"""Name -> class; the settings are its ``config_type``."""
