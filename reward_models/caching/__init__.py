"""Scores kept by hash of what they depend on, in memory or in a file.

Not here: how a score is made.
"""
