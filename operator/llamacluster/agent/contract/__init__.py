"""What operator and agents say to each other.

The operator imports this package and `planning`, nothing else of the agents.
"""
