"""Reward models made of others, and rules: ensembles, weighted sums, length, words, fluency.

Not here: anything that is fitted, but for the weights of an ensemble.
"""
