"""Supervised learning of language models: fine-tuning on rows of text, and pretraining from scratch.

Not here: reinforcement learning. Importing the package loads nothing.
"""
