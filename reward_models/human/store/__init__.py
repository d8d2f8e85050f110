"""The label store: an append-only log of what people were shown and said, and the state replayed from it.

Not here: statistics of several people's labels (``consensus``), the page (``page``), rewards (``live``).
"""
