"""Training: the step, the loop over epochs, callbacks and progress."""

from dlgpu.training.trainer import Trainer
