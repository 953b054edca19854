"""What operator and agents say to each other: `places` (names, ports and paths in the pods),
`options` (the agents' command lines) and `messages` (their JSON).

The operator imports this package and `planning`, nothing else of the agents.
"""
