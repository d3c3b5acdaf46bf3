// What recurrent kernels share: weights that stay in registers and shared memory for a whole sequence, products of a
// state with them, and the exchange of the state between steps.
//
// A team of TEAM lanes has one unit. A block has `width` units and `rows` samples, of which it takes ROWS in one pass;
// with several blocks along y each has a slice of the units, and the launch is cooperative. Blocks along x or z have other
// samples.
#pragma once

#include "common.cuh"
#include "grid.cuh"

constexpr int shape[] = {SHAPE};
constexpr int THREADS = shape[0];    // of a block, at most
constexpr int TEAM = shape[1];       // lanes for each unit, a power of two
constexpr int ROWS = shape[2];       // samples in one pass, a power of two, at most TEAM
constexpr int REGISTERS = shape[3];  // of each thread, for weights
constexpr int SHARE = TEAM / ROWS;   // lanes of a team for each sample

// Units whose teams read an input together where each has one sum: it then serves several sums.
constexpr int GROUP = TEAM > 8 ? 32 / TEAM : 4;

// v[0 .. N) summed over LANES lanes, each of which gets its part of the sums: the first lanes the first of them.
template <int N, int LANES>
__device__ void scatter_sums(A* v) {
    if constexpr (LANES > 1) {
        constexpr int HALF = N > 1 ? N / 2 : 0, DISTANCE = LANES / 2;
        if constexpr (N == 1) v[0] += __shfl_xor_sync(0xffffffffu, v[0], DISTANCE);
        bool upper = threadIdx.x & DISTANCE;
#pragma unroll
        for (int i = 0; i < HALF; i++) {
            A given = upper ? v[i] : v[i + HALF], kept = upper ? v[i + HALF] : v[i];
            v[i] = kept + __shfl_xor_sync(0xffffffffu, given, DISTANCE);
        }
        scatter_sums<(N > 1 ? N / 2 : 1), DISTANCE>(v);
    }
}

// What a thread works on, and the vectors that go from step to step.
struct Block {
    const int batch, units, width, rows, stride;
    const int local, unit;   // the team's unit in the block, and among all
    const long long first;   // the block's first sample
    A *inside, *outside;     // vectors in shared memory; in global memory (2, samples, stride) if blocks share samples
    A* own;                  // what the thread that speaks keeps of its units and samples: two values of each
    unsigned* arrivals;
    int turn = 0;            // exchanges so far

    // `depth` values make a vector, which `lanes` lanes read.
    __device__ Block(
        A* shared, A* outside, unsigned* arrivals, int batch, int units, int width, int rows, int depth, int lanes)
        : batch(batch), units(units), width(width), rows(rows), stride((depth + lanes - 1) / lanes * lanes),
          local(threadIdx.x / TEAM), unit(blockIdx.y * width + local),
          first(((long long)blockIdx.x * gridDim.z + blockIdx.z) * rows), inside(shared), outside(outside),
          own(shared + (outside ? ROWS : 2 * rows) * stride), arrivals(arrivals) {
        for (A* p = inside + threadIdx.x; p < own; p += blockDim.x) *p = 0;  // what pads a vector stays so
        __syncthreads();
    }
    __device__ T* spare() const { return (T*)(own + 2 * rows * width); }
    __device__ bool has_unit() const { return local < width && unit < units; }
    __device__ int sample(int pass) const { return pass * ROWS + threadIdx.x % TEAM / SHARE; }
    __device__ bool has(int pass) const { return has_unit() && first + sample(pass) < batch; }
    // Whether the thread is the one that finishes a step of its unit and sample.
    __device__ bool speaks(int pass) const { return has(pass) && threadIdx.x % SHARE == 0; }
    __device__ A& keeps(int pass, int which) const { return own[(which * rows + sample(pass)) * width + local]; }

    // For all units in the next turn.
    __device__ void put(int pass, int index, A value) const {
        long long at = (turn + 1) % 2;
        if (outside) outside[((at * gridDim.z + blockIdx.z) * rows + sample(pass)) * stride + index] = value;
        else inside[(at * rows + sample(pass)) * stride + index] = value;
    }
    __device__ void next_turn() {
        if (outside) grid_barrier(arrivals);
        else __syncthreads();
        turn++;
    }
    // The vectors of a pass, (ROWS, stride), that were put before this turn.
    __device__ const A* take(int pass) const {
        int from = turn % 2;
        if (!outside) return inside + (from * rows + pass * ROWS) * stride;
        const A* vectors = outside + (((long long)from * gridDim.z + blockIdx.z) * rows + pass * ROWS) * stride;
        if (pass) __syncthreads();  // all have read those of the pass before
        int words = ROWS * stride * (int)sizeof(A) / 16;  // of a copy, to which all vectors are aligned
#pragma unroll 4
        for (int i = threadIdx.x; i < words; i += blockDim.x) ((uint4*)inside)[i] = ((const uint4*)vectors)[i];
        __syncthreads();
        return inside;
    }
};

#define FOR_PASSES(pass, block) for (int pass = 0; pass * ROWS < (block).rows; pass++)

// The products of vectors with the weights of OUT columns for each unit, which lie in registers and, from where these end,
// in shared memory. A lane has every LANES-th weight of the columns of UNITS units.
template <int OUT, int UNITS>
struct Product {
    static constexpr int LANES = UNITS * TEAM, COLUMNS = UNITS * OUT, PAD = OUT > 2 ? 4 : OUT;
    static constexpr int HELD = REGISTERS * 4 / (COLUMNS * (int)sizeof(A));
    static constexpr int MINE = PAD > SHARE ? PAD / SHARE : 1;    // sums that a thread has after all
    static constexpr int COPIES = SHARE > PAD ? SHARE / PAD : 1;  // threads that have the same ones
    A held[COLUMNS][HELD];
    T* spare;
    int each;

    // weight k of column c of a unit is weights[unit * aside + c * apart + k * down]
    __device__ Product(const Block& b, const T* weights, int depth, long long aside, long long apart, long long down)
        : spare(b.spare()), each((depth + LANES - 1) / LANES) {
        int member = threadIdx.x % LANES, leader = b.local - member / TEAM;
        const T* from = weights + (b.unit - b.local + leader) * aside + member * down;
        auto weight = [&](int column, int j) {
            int local = leader + column / OUT;
            bool there = local < b.width && b.unit - b.local + local < b.units && member + j * LANES < depth;
            return there ? from[column / OUT * aside + column % OUT * apart] : T(0);
        };
#pragma unroll
        for (int j = 0; j < HELD; j++, from += LANES * down) {
#pragma unroll
            for (int c = 0; c < COLUMNS; c++) held[c][j] = A(weight(c, j));
        }
#pragma unroll 1
        for (int j = HELD; j < each; j++, from += LANES * down) {
            for (int c = 0; c < COLUMNS; c++) spare[place(c, j)] = weight(c, j);
        }
    }
    __device__ static int place(int c, int j) { return ((j - HELD) * COLUMNS + c) * blockDim.x + threadIdx.x; }

    // Columns first .. first + MINE of the thread's own unit and sample, for ROWS vectors.
    __device__ void operator()(const A* vectors, int stride, A (&mine)[MINE]) const {
        A sums[UNITS * ROWS * PAD] = {};
        vectors += threadIdx.x % LANES;
#pragma unroll
        for (int j = 0; j < HELD; j++) {
            if (j >= each) break;
            A weights[COLUMNS];
#pragma unroll
            for (int c = 0; c < COLUMNS; c++) weights[c] = held[c][j];
            add(sums, weights, vectors + j * LANES, stride);
        }
#pragma unroll 2
        for (int j = HELD; j < each; j++) {
            A weights[COLUMNS];
#pragma unroll
            for (int c = 0; c < COLUMNS; c++) weights[c] = A(spare[place(c, j)]);
            add(sums, weights, vectors + j * LANES, stride);
        }
        scatter_sums<UNITS * ROWS * PAD, LANES>(sums);
#pragma unroll
        for (int m = 0; m < MINE; m++) mine[m] = sums[m];
    }
    __device__ static void add(A* sums, const A* weights, const A* vectors, int stride) {
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            A value = vectors[r * stride];
#pragma unroll
            for (int c = 0; c < COLUMNS; c++) sums[(c / OUT * ROWS + r) * PAD + c % OUT] += value * weights[c];
        }
    }
    __device__ static int column(int m) { return threadIdx.x % SHARE / COPIES * MINE + m; }
    __device__ static bool writes() { return threadIdx.x % COPIES == 0; }

    // What the inputs give to the thread's columns at step t, of drive (batch, time, OUT * units); and whether there is one.
    __device__ static void load(
        const Block& b, const T* drive, const bool* mask, int t, int time, int pass, A (&mine)[MINE], bool& present) {
        if (t >= time || !b.has(pass)) return;
        long long step = (b.first + b.sample(pass)) * time + t;
        present = !mask || mask[step];
        for (int m = 0; m < MINE; m++) {
            if (OUT == PAD || column(m) < OUT) mine[m] = A(drive[(step * OUT + column(m)) * b.units + b.unit]);
        }
    }

    // The value of a column of the thread's unit and sample, from the lane that has it.
    __device__ static A gathered(const A (&mine)[MINE], int column) {
        int lane = threadIdx.x % 32;
        return __shfl_sync(0xffffffffu, mine[column % MINE], lane - lane % SHARE + column / MINE * COPIES);
    }
};
