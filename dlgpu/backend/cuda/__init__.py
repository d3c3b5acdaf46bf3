"""The CUDA column: chooses grid, block and shared memory for the kernels in kernels/*.cu. One file per domain."""
