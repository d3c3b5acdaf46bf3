"""The CUDA C++ sources of dlgpu, one file per domain; installed as the package `dlgpu.kernels`."""
