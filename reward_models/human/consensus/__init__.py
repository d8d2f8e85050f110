"""Statistics of several people's labels: posterior of the truth, agreement, position bias. Arrays in, numbers out.

Not here: where labels are kept (``store``).
"""
