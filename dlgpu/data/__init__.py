"""Batches of training data: checks of what the user gave, and ways to go through it."""

from dlgpu.data.batches import ArrayData, Batch, Rows, StreamData, as_data
from dlgpu.data.structure import leaves, map_structure
