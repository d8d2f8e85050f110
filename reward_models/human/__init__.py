"""People as annotators: which pairs to ask about next.

Not here: what is done with the answers (``judgements``).
"""
