"""Language models: loading, decoding, sampling, teacher forcing, the frozen reference, low-rank updates.

Not here: environments, rewards, training. Importing the package loads nothing; torch comes with its modules.
"""
