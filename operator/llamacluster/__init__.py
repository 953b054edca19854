"""LlamaCluster: llama.cpp spread over the CPU nodes of a Kubernetes cluster."""

__version__ = "0.1.0"
