// A tile of sums on tensor cores: both factors go through shared memory, in stages that are copied some steps ahead.
//
// All tiles add up the same products in the same order, so that their choice changes no bit of a result.
#pragma once

#include "mma.cuh"

struct Tile {
    int rows, columns, warp_rows, stages;  // of it a warp has warp_rows by WARP_COLUMNS
};
constexpr Tile tile = {TILE};
constexpr int WARP_COLUMNS = 32, WARPS_DOWN = tile.rows / tile.warp_rows;
constexpr int THREADS = WARPS_DOWN * (tile.columns / WARP_COLUMNS) * 32;
constexpr int DEPTH = 64 / sizeof(T);  // of a stage

using Sums = float[tile.warp_rows / 16][WARP_COLUMNS / 16][2][4];

// One factor in a stage: SIZE rows (of the left one) or columns (of the right one), DEPTH of each. If DEEP then each
// one's values lie together, else those of one depth. The gaps between them spread the reads over the banks.
template <int SIZE, bool DEEP>
struct Factor {
    static constexpr int STRIDE = DEEP ? DEPTH + 16 / (int)sizeof(T) : SIZE + 8;
    static constexpr int LENGTH = (DEEP ? SIZE : DEPTH) * STRIDE;

    __device__ static Fragment fragment(const T* values, int first, int depth) {
        const int lane = threadIdx.x % 32;
        Fragment f;
        if constexpr (DEEP) {
            f = load_matrices<false>(values + (first + lane % 16) * STRIDE + depth + lane / 16 * (STEP / 2));
        } else if constexpr (sizeof(T) == 2) {
            f = load_matrices<true>(values + (depth + lane / 16 * 8 + lane % 8) * STRIDE + first + lane / 8 % 2 * 8);
        } else {
            const T* own = values + (depth + lane % 4) * STRIDE + first + lane / 4;
#pragma unroll
            for (int i = 0; i < 4; i++) f.at[i] = __float_as_uint(own[i / 2 * 4 * STRIDE + i % 2 * 8]);
        }
        if constexpr (sizeof(T) == 4) round_to_tf32(f);
        return f;
    }
};

__device__ inline int warp_row() { return threadIdx.x / 32 % WARPS_DOWN * tile.warp_rows; }
__device__ inline int warp_column() { return threadIdx.x / 32 / WARPS_DOWN * WARP_COLUMNS; }

// sums += left @ right, of one stage.
template <class Left, class Right>
__device__ void multiply(const T* left, const T* right, Sums& sums) {
#pragma unroll
    for (int depth = 0; depth < DEPTH; depth += STEP) {
        Fragment a[tile.warp_rows / 16], b[WARP_COLUMNS / 16];
#pragma unroll
        for (int m = 0; m < tile.warp_rows / 16; m++) a[m] = Left::fragment(left, warp_row() + 16 * m, depth);
#pragma unroll
        for (int n = 0; n < WARP_COLUMNS / 16; n++) b[n] = Right::fragment(right, warp_column() + 16 * n, depth);
        multiply_add(a, b, sums);
    }
}

// sums += left @ right over all steps: load(step, left, right) begins the copies of a step, in order;
// arrived(right) sees each one when it has come.
template <class Left, class Right, class Load, class Arrived>
__device__ void multiply_all(T* memory, int steps, Load load, Arrived arrived, Sums& sums) {
    auto left = [&](int step) { return memory + step % tile.stages * (Left::LENGTH + Right::LENGTH); };
    auto right = [&](int step) { return left(step) + Left::LENGTH; };
    for (int step = 0; step < tile.stages - 1; step++) {
        if (step < steps) load(step, left(step), right(step));
        end_of_copies();
    }
    for (int step = 0; step < steps; step++) {
        wait_for_copies<tile.stages - 2>();
        __syncthreads();  // this step is here for all, and none still reads the one before
        int next = step + tile.stages - 1;
        if (next < steps) load(next, left(next), right(next));
        end_of_copies();
        arrived(right(step));
        multiply<Left, Right>(left(step), right(step), sums);
    }
}

// Calls use(row, column, sum) for each sum of this thread.
template <class Use>
__device__ void each_sum(const Sums& sums, Use use) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int m = 0; m < tile.warp_rows / 16; m++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
#pragma unroll
            for (int n = 0; n < WARP_COLUMNS / 8; n++) {
                use(warp_row() + 16 * m + lane / 4 + e / 2 * 8, warp_column() + 8 * n + lane % 4 * 2 + e % 2,
                    sums[m][n / 2][n % 2][e]);
            }
        }
    }
}
