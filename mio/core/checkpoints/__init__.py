"""Checkpoints of training: each rank writes what it holds, in the background; readable on any number of ranks."""

from mio.core.checkpoints.reading import Checkpoint, TensorInfo, latest, listed
from mio.core.checkpoints.writing import CheckpointWriter

__all__ = ["Checkpoint", "CheckpointWriter", "TensorInfo", "latest", "listed"]
