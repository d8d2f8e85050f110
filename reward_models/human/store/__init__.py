"""The label store: an append-only log of what people were shown and said, and the state replayed from it.

Not here: who is asked what (``collecting``), statistics (``consensus``), the page (``page``), rewards (``live``).
"""
