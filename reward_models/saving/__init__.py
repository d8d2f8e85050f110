"""The record of a saved reward model, its README, and the fit of its normaliser.

Not here: what a particular kind of model puts into its folder.
"""
