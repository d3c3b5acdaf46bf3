"""The emulator: CUDA kernels, unchanged, compiled by the host's C++ compiler and run on NumPy arrays."""
