"""Collecting labels: what is asked, of whom it is asked next, how answers come in, and what comes out as judgements.

Not here: the log that all of it is kept in (``store``), how people see it (``page``), rewards (``live``).
"""
