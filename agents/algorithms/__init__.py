"""Algorithms: each is an advantage estimator, an objective and a config over the one learner of ``update``.

Not here: the formulas themselves, and the loop that calls ``learn``.
"""
