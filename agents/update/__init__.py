"""The update of a policy from finished episodes: formulas, advantages, the objective, and the learner around them.

Not here: which of these parts make which algorithm (``algorithms``), the training loop, run folders.
"""
