"""Real faults in a real cluster under steady load, and three laws that hold throughout."""
