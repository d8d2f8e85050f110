"""Forms that judgements have elsewhere, read into the one record: other tools, published data sets, trees of messages.

Not here: the record itself, files of the project's own form (``judgements.rows``).
"""
