// What all kernels share: the storage type T, the type A in which it is computed, and reductions over a block.
#pragma once

// CUDA's header of a 16-bit type, where one is stored. T is a macro, and must not be defined before that header, which
// has template parameters of that name.
#if defined(STORAGE_HEADER) && !defined(__CUDA_EMULATOR__)
#include STORAGE_HEADER
#endif
#ifndef STORAGE
#define STORAGE float
#endif
#define T STORAGE

template <class Storage> struct ComputedIn { using type = float; };
template <> struct ComputedIn<double> { using type = double; };
using A = ComputedIn<T>::type;

// Every thread gets a first index and a stride: any number of blocks covers any size.
#define FOR_EACH(i, size) \
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < (size); i += (long long)gridDim.x * blockDim.x)

__device__ inline A not_a_number() { return A(__int_as_float(0x7fc00000)); }
__device__ inline A infinity() { return A(__int_as_float(0x7f800000)); }

// max and min that return NaN where there is one, as NumPy's do; CUDA's own drop it.
__device__ inline A larger(A a, A b) { return a > b || a != a ? a : b; }
__device__ inline A smaller(A a, A b) { return a < b || a != a ? a : b; }

struct Sum {
    __device__ static A start() { return A(0); }
    __device__ static A join(A a, A b) { return a + b; }
};
struct Max {
    __device__ static A start() { return -infinity(); }
    __device__ static A join(A a, A b) { return larger(a, b); }
};

// The reduction of all threads' values, in every thread. blockDim.x must be a multiple of 32; the order is always the same.
template <class Operation>
__device__ A block_reduce(A value) {
    __shared__ A partial[32];
    for (int distance = 16; distance; distance >>= 1) {
        value = Operation::join(value, __shfl_xor_sync(0xffffffffu, value, distance));
    }
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
    __syncthreads();
    value = partial[0];
    for (int warp = 1; warp < (int)blockDim.x / 32; warp++) value = Operation::join(value, partial[warp]);
    __syncthreads();  // before the next reduction writes
    return value;
}
