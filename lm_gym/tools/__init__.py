"""Files, locks, digests, optional imports, settings; ``console`` for terminals, ``trainer`` for transformers' Trainer.

Importing the package loads nothing, and nothing here knows of language models.
"""
