"""A model small enough for a ConfigMap that says a fixed sentence, whatever it is asked."""

from tests.model.build import SENTENCE, Shape, write

__all__ = ["SENTENCE", "Shape", "write"]
