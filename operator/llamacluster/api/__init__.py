"""The LlamaCluster API: types, defaults and bounds, and the CRD made from them."""

GROUP = "llamacluster.dev"
VERSION = "v1alpha1"
KIND = "LlamaCluster"
PLURAL = "llamaclusters"
API_VERSION = f"{GROUP}/{VERSION}"
