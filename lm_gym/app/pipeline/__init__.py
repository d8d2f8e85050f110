"""The loop as one pipeline: fine-tune, collect judgements, fit a reward model, PPO, measure, again; and its two plans.

Not here: the command line, the page that tells of a finished run (``report``).
"""
