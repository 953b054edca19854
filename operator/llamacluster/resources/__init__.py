"""From a LlamaCluster to the Kubernetes objects that make it: pure, one module for each object."""
