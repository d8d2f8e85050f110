"""``lm-gym doctor``: packages, devices, the precision that is fast here, and whether a model loads.

Importing the package loads nothing; a package that is broken or missing is told of, not stumbled over.
"""
