"""Commands on a user's own files: the whole loop, RL, generation, comparison, and reward models of any kind.

Not here: the loop and its stages (``pipeline``), the flags of the commands (``options``).
"""
