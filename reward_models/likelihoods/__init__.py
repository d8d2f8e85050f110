"""Likelihoods of judgements under scores, as pure functions of tensors, and their joint loss.

Not here: models, data, optimisers.
"""
