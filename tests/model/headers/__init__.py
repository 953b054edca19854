"""GGUF headers of real models: their true parameters, tensors and sizes, but no weights.

A file made here begins like the published one and ends where the weights would begin, so that what
plans by the header can be proved on the models that people run. Parameters are those of the models'
config.json under the names that llama.cpp's converter gives them. Tokenizers have the true number
of tokens and merges, which are made up but as long as real ones: they make the header its size.
"""

from __future__ import annotations

from tests.model.headers.architectures import ARCHITECTURES
from tests.model.headers.file import FILE_TYPES, write_header, write_sparse, write_sparse_split
from tests.model.headers.models import MODELS

__all__ = [
    "ARCHITECTURES",
    "FILE_TYPES",
    "MODELS",
    "write_header",
    "write_sparse",
    "write_sparse_split",
]
