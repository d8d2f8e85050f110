"""A scalar head on any Hugging Face model: texts to tokens, the head, adapters, the fit, the saved folder.

Not here: heads on frozen sentence encoders (``embedding``), measurement (``measuring``).
"""
