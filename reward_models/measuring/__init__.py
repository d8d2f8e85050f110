"""Measurement of reward models and annotators: accuracy, calibration, agreement, probes, and the card of them all.

Not here: anything that changes a model.
"""
