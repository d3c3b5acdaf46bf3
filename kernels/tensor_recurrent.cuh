// What recurrent kernels on tensor cores share, for networks whose steps have large products: the weights stay in
// registers for a whole sequence.
//
// A step has two parts, each of which ends at the grid's barrier. In the first one a block multiplies the vectors of its
// samples by its tile of the weights, which has TILE_COLUMNS columns and a slice of the depth. In the second one each
// thread adds up the slices' sums for some samples and units, always the same, and does the rest of their step.
#pragma once

#include "grid.cuh"
#include "mma.cuh"

constexpr int TILE_COLUMNS = 128, TILE_ROWS = 32;  // of sums; a warp has 32 columns, and half of a slice's depth
constexpr int THREADS = TILE_COLUMNS * 2;
constexpr int HELD = 16;     // instructions' depth of weights that a warp holds, at most: 128 registers of a thread
constexpr int STAGES = 4;    // tiles of vectors in shared memory

struct Spread {
    const int batch, units, rows, each;  // samples of a block; instructions' depth of a warp
    const int slices, slice, half;       // of the depth; the block's, and the warp's half of it
    const int depth, stride, columns;    // of a slice; of a vector; of the sums
    const int first_row, first_column, thread, threads;
    T *vectors, *stages;  // (samples, stride) in global memory; (STAGES, TILE_ROWS, apart) in shared memory
    float *partial, *given;  // (slices, samples, columns) in global memory; what the halves exchange, in shared memory
    A* carried;              // (2, batch, units) that go from step to step
    unsigned* arrivals;
    Fragment weights[HELD][2];

    // weight (k, column) of `total` by `all` is from[k * down + column * across].
    __device__ Spread(
        A* shared, const T* from, int total, int all, long long down, long long across, T* vectors, float* partial,
        A* carried, unsigned* arrivals, int batch, int units, int rows, int slices, int each)
        : batch(batch), units(units), rows(rows), each(each), slices(slices), slice(blockIdx.z % slices),
          half(threadIdx.x / TILE_COLUMNS), depth(2 * each * STEP), stride(slices * depth),
          columns(gridDim.y * TILE_COLUMNS), first_row(blockIdx.z / slices * rows),
          first_column(blockIdx.y * TILE_COLUMNS + threadIdx.x % TILE_COLUMNS / 32 * 32),
          thread((blockIdx.z * gridDim.y + blockIdx.y) * THREADS + threadIdx.x),
          threads(gridDim.z * gridDim.y * THREADS), vectors(vectors), stages((T*)shared), partial(partial),
          given((float*)(stages + STAGES * TILE_ROWS * apart())), carried(carried), arrivals(arrivals) {
        constexpr int VALUES = sizeof(T) < 4 ? 2 : 1;  // in a register
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int s = 0; s < HELD; s++) {
            if (s >= each) break;
#pragma unroll
            for (int i = 0; i < 8; i++) {
                int r = i % 4, column = first_column + i / 4 * 16 + r % 2 * 8 + lane / 4;
                int k = slice * depth + (half * each + s) * STEP + (r / 2 * 4 + lane % 4) * VALUES;
                T word[VALUES];
                for (int v = 0; v < VALUES; v++) {
                    bool there = column < all && k + v < total;
                    word[v] = there ? from[(k + v) * down + column * across] : T(0.0f);
                }
                memcpy(&weights[s][i / 4].at[r], word, 4);
            }
            if constexpr (sizeof(T) == 4) round_to_tf32(weights[s][0]), round_to_tf32(weights[s][1]);
        }
    }
    // Between rows in a stage; the gap spreads the reads over the banks.
    __device__ int apart() const { return depth + 16 / (int)sizeof(T); }

    // What a thread alone reads and writes, in the precision in which it is computed.
    __device__ A& carry(int which, int sample, int unit) const {
        return carried[((long long)which * batch + sample) * units + unit];
    }
    // For the next product.
    __device__ void put(int sample, int index, A value) const {
        T& to = vectors[(long long)sample * stride + index];
        if constexpr (sizeof(T) == 4) to = T(__uint_as_float(tf32(__float_as_uint(float(value)))));
        else to = T(value);
    }
    __device__ void barrier() const { grid_barrier(arrivals); }

    // Calls use(sample, unit) for all that the thread finishes.
    template <class Use>
    __device__ void each_own(Use use) const {
        for (int i = thread; i < batch * units; i += threads) use(i / units, i % units);
    }

    // The products of all vectors, for `finish`.
    __device__ void multiply() const {
        const int lane = threadIdx.x % 32, tiles = rows / TILE_ROWS;
        auto stage = [&](int tile) { return stages + tile % STAGES * TILE_ROWS * apart(); };
        auto load = [&](int tile) {
            constexpr int WORD = 16 / sizeof(T), LANES = THREADS / TILE_ROWS;
            int row = threadIdx.x / LANES;
            const T* from = vectors + (long long)(first_row + tile * TILE_ROWS + row) * stride + slice * depth;
            T* to = stage(tile) + row * apart();
            if (tile < tiles) {
                for (int i = threadIdx.x % LANES * WORD; i < depth; i += LANES * WORD) copy<16>(to + i, from + i, true);
            }
            end_of_copies();
        };
        for (int tile = 0; tile < STAGES - 1; tile++) load(tile);
        for (int tile = 0; tile < tiles; tile++) {
            wait_for_copies<STAGES - 2>();
            __syncthreads();  // this tile is here for all, and none still reads the one before
            load(tile + STAGES - 1);
            float sums[2][2][2][4] = {};
            const T* values = stage(tile) + lane % 16 * apart() + half * each * STEP + lane / 16 * (STEP / 2);
#pragma unroll
            for (int s = 0; s < HELD; s++) {
                if (s >= each) break;
                Fragment left[2];
#pragma unroll
                for (int m = 0; m < 2; m++) left[m] = load_matrices<false>(values + m * 16 * apart() + s * STEP);
                multiply_add(left, weights[s], sums);
            }
            // each half of the warps gets all of 16 rows
            auto sum = [&](int m, int i) { return sums[m][i / 8][i / 4 % 2][i % 4]; };
#pragma unroll
            for (int i = 0; i < 16; i++) given[i * THREADS + threadIdx.x] = half ? sum(0, i) : sum(1, i);
            __syncthreads();
            const float* taken = given + (threadIdx.x + TILE_COLUMNS) % THREADS;
            const int row = first_row + tile * TILE_ROWS + half * 16 + lane / 4;
            float* to = partial + ((long long)slice * all_rows() + row) * columns + first_column + lane % 4 * 2;
            auto both = [&](int i) { return (half ? sum(1, i) : sum(0, i)) + taken[i * THREADS]; };
#pragma unroll
            for (int i = 0; i < 16; i += 2) {
                *(float2*)(to + (long long)(i / 2 % 2 * 8) * columns + i / 4 * 8) = make_float2(both(i), both(i + 1));
            }
        }
        barrier();
    }
    __device__ int all_rows() const { return gridDim.z / slices * rows; }

    // Calls use(sample, unit, sums, load(sample, unit)) with the products' columns from + unit, from + units + unit, ...
    template <int N, class Load, class Use>
    __device__ void finish(int from, Load load, Use use) const {
        constexpr int TOGETHER = 2, AHEAD = N > 1 ? 2 : 8;  // so that a thread waits less often; more would spill registers
        const long long apart = (long long)all_rows() * columns;
        for (int first = thread; first < batch * units; first += TOGETHER * threads) {
            const float* at[TOGETHER];
            A sums[TOGETHER][N] = {};
            decltype(load(0, 0)) loaded[TOGETHER] = {};
            auto each_of_them = [&](auto with) {
#pragma unroll
                for (int k = 0; k < TOGETHER; k++) {
                    int i = first + k * threads;
                    if (i < batch * units) with(k, i / units, i % units);
                }
            };
            each_of_them([&](int k, int sample, int unit) {
                at[k] = partial + (long long)sample * columns + from + unit;
                loaded[k] = load(sample, unit);
            });
#pragma unroll AHEAD
            for (int s = 0; s < slices; s++) {
                each_of_them([&](int k, int, int) {
#pragma unroll
                    for (int n = 0; n < N; n++) sums[k][n] += A(at[k][s * apart + n * units]);
                });
            }
            each_of_them([&](int k, int sample, int unit) { use(sample, unit, sums[k], loaded[k]); });
        }
        barrier();
    }
};
