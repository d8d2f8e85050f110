"""Files, locks, digests, optional imports and other helpers that know nothing of language models.

Importing the package loads nothing.
"""
