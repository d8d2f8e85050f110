"""Handles of pretrained weights: what on the disk or on the hub each stands for, and how anything is loaded from it.

Importing the package loads nothing. It does not know what the weights are loaded as.
"""
