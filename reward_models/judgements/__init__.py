"""Judgements: the one record of what was said, its files, annotators, splits, and the learning targets in them.

Not here: models, losses, scores; ``forms`` reads what other tools wrote.
"""
