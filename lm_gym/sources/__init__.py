"""Rows of data from wherever they are: files of every kind, data sets, lists; and the messages in them.

Not here: what a row means (prompts, fine-tuning, judgements).
"""
