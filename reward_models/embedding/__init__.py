"""A small head on a frozen sentence encoder: a reward model that trains in seconds.

Not here: encoders that are trained (``scalar``).
"""
