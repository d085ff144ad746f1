"""The files of the reference implementation of DeepSSIM, read and written."""

from deepssim.reference.files import (
    MatrixFile,
    read_embedding,
    read_index,
    read_matrix,
    write_embedding,
    write_index,
    write_matrix,
)
from deepssim.reference.names import file_of, identifiers, key_of

__all__ = [
    "MatrixFile",
    "file_of",
    "identifiers",
    "key_of",
    "read_embedding",
    "read_index",
    "read_matrix",
    "write_embedding",
    "write_index",
    "write_matrix",
]
