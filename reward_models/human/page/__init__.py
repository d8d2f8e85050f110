"""The labelling page: a web application over a label store, and its HTML, CSS and JavaScript.

Not here: what an item or an answer is (``store``), the command that starts it (``lm_gym.app.label``).
"""
