"""Rows of data from wherever they are: files of every kind, data sets, lists; the messages in them, and transcripts.

Not here: what a row means (prompts, fine-tuning, judgements).
"""
