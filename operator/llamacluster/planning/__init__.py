"""What can be known about a model and a group without running anything: pure, no I/O of its own."""
