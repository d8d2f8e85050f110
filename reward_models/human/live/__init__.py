"""People as a slow reward model: questions with tickets, answers when they come, and who is paid for.

Not here: how answers are kept (``store``) or given (``page``).
"""
