// Products of matrices, with a bias and an activation in the same pass, or times an activation's slope.
//
// A block computes a tile of sums, 16 x 16 threads with EACH x EACH of them each, that stay in registers while it walks
// over the inner dimension: slices of both operands go through shared memory, where each value is read by 16 threads.
#include "activations.cuh"

#ifndef ACTIVATION
#define ACTIVATION linear
#endif
#ifndef EACH
#define EACH 4
#endif
#ifndef SLOPE  // of the activation whose gradient the product is
#define SLOPE linear
#endif
#define JOIN(a, b) a##b
#define SLOPE_OF(name) JOIN(name, _slope)
constexpr int SIDE = 16, TILE = SIDE * EACH, DEPTH = 16;

// Threads that follow each other write rows of this length; one more, so that a column is in different banks.
using Slice = A[DEPTH][TILE + 1];

// What follows the sum: z = sum + bias is kept where the activation's slope needs it. `saved` is what was kept for SLOPE.
__device__ inline void finish(
    A sum, const T* bias, const T* saved, T* z, T* out, long long at, long long column) {
    if (bias) sum += A(bias[column]);
    if (z) z[at] = T(sum);
    out[at] = T(activations::ACTIVATION(sum) * activations::SLOPE_OF(SLOPE)(saved ? A(saved[at]) : A(0)));
}

// slice[k][i] = x[first + i, start + k], zeros beyond `size` and `stop`. `turned`: x lies with its rows side by side.
__device__ inline void load(
    Slice& slice, const T* x, long long first, long long size, long long start, long long stop, long long length,
    bool turned) {
    x += turned ? start * size + first : first * length + start;
    long long down = turned ? 1 : length, along = turned ? size : 1;
    int high = size - first < TILE ? int(size - first) : TILE, wide = stop - start < DEPTH ? int(stop - start) : DEPTH;
#pragma unroll 1  // unrolled, the addresses take so many registers that some spill
    for (int at = threadIdx.y * SIDE + threadIdx.x; at < DEPTH * TILE; at += SIDE * SIDE) {
        int k = turned ? at / TILE : at % DEPTH, i = turned ? at % TILE : at / DEPTH;
        slice[k][i] = i < high && k < wide ? A(x[i * down + k * along]) : A(0);
    }
}

// out = activation(a @ b + bias) of each matrix in a stack, or with several `splits` of the inner dimension partial sums;
// with `saved` (stack, rows, columns) times the SLOPE there.
//
// a: (rows, inner), or with a_turned (inner, rows); b: (inner, columns), or with b_turned (columns, inner). The next
// matrix is a_apart and b_apart values on, 0 where all have the same. partial: (stack, splits, rows, columns).
// column_sums: of b (inner, columns), where it is asked for; of a single matrix. Its parts lie behind those of the product.
extern "C" __global__ void __launch_bounds__(256) product(
    const T* a, const T* b, const T* bias, const T* saved, A* partial, T* z, T* out, T* column_sums, long long rows,
    long long columns, long long inner, bool a_turned, bool b_turned, long long a_apart, long long b_apart,
    long long stack, int splits) {
    __shared__ Slice left, right;
    long long across = (columns + TILE - 1) / TILE, values = rows * columns;
    long long row = blockIdx.x / across * TILE, column = blockIdx.x % across * TILE;
    long long part = (inner + splits - 1) / splits;
    for (long long item = blockIdx.y; item < stack * splits; item += gridDim.y) {
        long long matrix = item / splits, start = item % splits * part;
        long long stop = start + part < inner ? start + part : inner;
        A sums[EACH][EACH] = {}, of_columns[EACH] = {};
        bool sum_columns = column_sums && row == 0 && threadIdx.y == 0;
        for (; start < stop; start += DEPTH) {
            load(left, a + matrix * a_apart, row, rows, start, stop, inner, a_turned);
            load(right, b + matrix * b_apart, column, columns, start, stop, inner, !b_turned);
            __syncthreads();
#pragma unroll
            for (int k = 0; k < DEPTH; k++) {
                A from_left[EACH], from_right[EACH];
#pragma unroll
                for (int i = 0; i < EACH; i++) {
                    from_left[i] = left[k][threadIdx.y + i * SIDE];
                    from_right[i] = right[k][threadIdx.x + i * SIDE];
                }
#pragma unroll
                for (int i = 0; i < EACH; i++) {
#pragma unroll
                    for (int j = 0; j < EACH; j++) sums[i][j] += from_left[i] * from_right[j];
                }
                if (sum_columns) {
#pragma unroll
                    for (int j = 0; j < EACH; j++) of_columns[j] += from_right[j];
                }
            }
            __syncthreads();
        }
#pragma unroll
        for (int i = 0; i < EACH; i++) {
#pragma unroll
            for (int j = 0; j < EACH; j++) {
                long long r = row + threadIdx.y + i * SIDE, c = column + threadIdx.x + j * SIDE;
                if (r >= rows || c >= columns) continue;
                long long at = item * values + r * columns + c;
                if (partial) partial[at] = sums[i][j];
                else finish(sums[i][j], bias, saved, z, out, at, c);
            }
        }
        if (!sum_columns) continue;
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            long long c = column + threadIdx.x + j * SIDE;
            if (c >= columns) continue;
            if (partial) partial[splits * values + item * columns + c] = of_columns[j];
            else column_sums[c] = T(of_columns[j]);
        }
    }
}

// The sums of all parts, always in the same order.
extern "C" __global__ void join_splits(
    const A* partial, const T* bias, const T* saved, T* z, T* out, T* column_sums, long long values, long long columns,
    int splits, long long size) {
    FOR_EACH(i, size + (column_sums ? columns : 0)) {
        bool of_columns = i >= size;
        long long step = of_columns ? columns : values;
        const A* parts = partial + (of_columns ? size * splits + i - size : i / values * values * splits + i % values);
        A sum = 0;
        for (int s = 0; s < splits; s++) sum += parts[s * step];
        if (of_columns) column_sums[i - size] = T(sum);
        else finish(sum, bias, saved, z, out, i, i % columns);
    }
}
