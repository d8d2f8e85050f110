"""``lm-gym label``: the labelling page and its terminal form, as commands.

Not here: the page itself and the label store (``lm_gym.reward_models.human``).
"""
