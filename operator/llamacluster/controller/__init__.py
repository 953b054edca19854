"""Watches LlamaClusters and drives each towards its spec."""
