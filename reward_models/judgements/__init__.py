"""Judgements: the one record of what was said, its file forms, annotators, splits, and the learning targets in them.

Not here: models, losses, scores.
"""
