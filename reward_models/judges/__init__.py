"""Language models and remote functions as judges, the hidden true score, and simulated annotators that see it.

Not here: models that are fitted to judgements.
"""
