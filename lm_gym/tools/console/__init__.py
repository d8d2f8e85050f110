"""What a person sees while the library works: progress, text that is safe on a terminal, transformers kept quiet.

Not here: what the commands of ``lm-gym`` say (``app``).
"""
