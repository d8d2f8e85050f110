"""Pages about finished runs and reward models: data, plots, HTML.

Not here: anything that runs or measures.
"""
