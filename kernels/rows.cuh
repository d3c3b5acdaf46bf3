// Rows that are reduced by a team of threads: blockDim.x threads share a row, blockDim.y rows share a block.
//
// blockDim.x is a power of two up to 32, or a multiple of 32; then blockDim.y is 1. The block is a multiple of 32 threads.
#pragma once

#include "common.cuh"

// Every thread of a warp takes the same number of turns, for the shuffles: a team may have a row that is none, `row >= rows`.
#define FOR_EACH_ROW(row, rows) \
    for (long long row##_first = (long long)blockIdx.x * blockDim.y, row = row##_first + threadIdx.y; \
         row##_first < (rows); \
         row##_first += (long long)gridDim.x * blockDim.y, row += (long long)gridDim.x * blockDim.y)

#define FOR_EACH_COLUMN(j, columns) for (long long j = threadIdx.x; j < (columns); j += blockDim.x)

// The reduction of a team's values, in each of its threads, always in the same order.
template <class Operation>
__device__ A row_reduce(A value) {
    if (blockDim.x > 32) return block_reduce<Operation>(value);
    for (int distance = blockDim.x / 2; distance; distance >>= 1) {
        value = Operation::join(value, __shfl_xor_sync(0xffffffffu, value, distance));
    }
    return value;
}
