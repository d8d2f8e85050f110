"""``lm-gym chat``: talking to one language model, or to two side by side.

Not here: sampling (``lm_gym.models``), scores and KL (``lm_gym.envs.rollout``).
"""
