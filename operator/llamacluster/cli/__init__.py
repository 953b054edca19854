"""Commands."""

ENGINE_IMAGE_ENV = "LLAMACLUSTER_ENGINE_IMAGE"
"""Names the engine image of LlamaClusters that name none."""
