"""The loop (fine-tune, collect judgements, fit a reward model, PPO, measure, again), its plan, stages and story.

Not here: the command line, commands on a user's files (``from_files``), the page about a finished run (``report``).
"""
