"""Whole-program measurements against peers, printed as ratios of runs made side by side."""
