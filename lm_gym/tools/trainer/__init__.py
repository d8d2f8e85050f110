"""Helpers around ``transformers.Trainer``: errors, progress, and the process-wide state that it changes.

Not here: the trainers themselves (``agents.supervised``, ``reward_models.scalar``).
"""
