"""Commands."""

ENGINE_IMAGE_ENV = "LLAMACLUSTER_ENGINE_IMAGE"
"""Names the engine image of LlamaClusters that name none."""
NAMESPACE_ENV = "POD_NAMESPACE"
"""Names the namespace of the operator's own pod."""
POD_ENV = "POD_ID"
"""Names the operator's own pod."""
