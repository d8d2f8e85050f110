"""The loop (fine-tune, collect judgements, fit a reward model, PPO, measure, again), its plans, and its single stages.

Not here: the command line, the page about a finished run (``report``).
"""
