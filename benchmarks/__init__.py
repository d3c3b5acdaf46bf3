"""Measurements: `python -m benchmarks` times a training step of the four programs, dlgpu beside its peers."""
