"""The text-generation MDP and the Gymnasium environments that are views on it; rollouts and evaluation in them.

Not here: models, reward models, agents. Importing the package loads nothing.
"""
