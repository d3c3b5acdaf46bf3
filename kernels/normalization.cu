// Normalization, one launch each way.
//
// Layer: a team of threads a row, the variance in a second pass. Batch: the blocks sum up chunks of the rows by Welford's
// method, wait for each other, join the chunks and go through them again.
//
// x, output and their gradients are stored as T; the much smaller rest is not rounded.
#include "columns.cuh"
#include "grid.cuh"
#include "rows.cuh"

// -- rows

extern "C" __global__ void layer_normalization(
    const T* x, const A* scale, const A* offset, T* output, A* mean, A* variance, long long rows, long long features,
    double epsilon) {
    FOR_EACH_ROW(row, rows) {
        long long start = row * features, width = row < rows ? features : 0;
        A average = 0, spread = 0;
        FOR_EACH_COLUMN(j, width) average += A(x[start + j]);
        average = row_reduce<Sum>(average) / features;
        FOR_EACH_COLUMN(j, width) {
            A centred = A(x[start + j]) - average;
            spread += centred * centred;
        }
        spread = row_reduce<Sum>(spread) / features;
        A inverse = 1 / sqrt(spread + A(epsilon));
        FOR_EACH_COLUMN(j, width) {
            A value = (A(x[start + j]) - average) * inverse;
            if (scale) value *= scale[j];
            if (offset) value += offset[j];
            output[start + j] = T(value);
        }
        if (width && threadIdx.x == 0) {
            mean[row] = average;
            variance[row] = spread;
        }
    }
}

// -- columns

// What is summed up over a column. For the moments: count, mean and sum of squared distances from it.
struct Moments {
    A count, mean, squares;

    __device__ void add(A v) {
        count += 1;
        A distance = v - mean;
        mean += distance / count;
        squares += distance * (v - mean);
    }
    __device__ void join(const Moments& other) {
        if (other.count == 0) return;
        A both = count + other.count, distance = other.mean - mean, share = other.count / both;
        squares += other.squares + distance * distance * count * share;
        mean += distance * share;
        count = both;
    }
};

// For the gradients: rows that count, sum of grad, sum of grad * normalized.
struct Gradients {
    A count, offset, scale;

    __device__ void join(const Gradients& other) {
        count += other.count;
        offset += other.offset;
        scale += other.scale;
    }
};

__device__ inline void normalize_chunk(
    const T* x, const A* scale, const A* offset, T* output, const Chunk& chunk, A mean, A variance, A epsilon) {
    long long c = chunk.column;
    A factor = (scale ? scale[c] : A(1)) / sqrt(variance + epsilon), shift = offset ? offset[c] : A(0);
    FOR_EACH_ROW_OF(chunk, row) {
        output[row * chunk.channels + c] = T((A(x[row * chunk.channels + c]) - mean) * factor + shift);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) batch_normalization(
    const T* x, const bool* mask, const A* scale, const A* offset, T* output, A* mean, A* variance, A* partial,
    unsigned* arrivals, long long rows, long long channels, int chunks, int width, double epsilon) {
    FOR_EACH_CHUNK(chunk) {
        Moments value = {0, 0, 0};
        if (chunk.inside()) {
            FOR_EACH_ROW_OF(chunk, row) {
                if (!mask || mask[row]) value.add(A(x[row * channels + chunk.column]));
            }
        }
        keep(partial, chunk, value);
    }
    grid_barrier(arrivals);
    FOR_EACH_CHUNK(chunk) {
        Moments all = joined<Moments>(partial, chunk);
        if (!chunk.inside()) continue;
        A spread = all.squares / larger(all.count, A(1));
        normalize_chunk(x, scale, offset, output, chunk, all.mean, spread, A(epsilon));
        if (chunk.index == 0 && chunk.speaks()) {
            mean[chunk.column] = all.mean;
            variance[chunk.column] = spread;
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) normalize(
    const T* x, const A* mean, const A* variance, const A* scale, const A* offset, T* output, long long rows,
    long long channels, int chunks, int width, double epsilon) {
    FOR_EACH_CHUNK(chunk) {
        long long c = chunk.column;
        if (chunk.inside()) normalize_chunk(x, scale, offset, output, chunk, mean[c], variance[c], A(epsilon));
    }
}

// Keeps the sums of grad and grad * normalized, by the statistics of the rows if BY_ROW, or else of the columns.
template <bool BY_ROW>
__device__ void keep_gradients(
    const T* grad, const T* x, const A* mean, const A* variance, const bool* mask, A* partial, long long rows,
    long long channels, int chunks, int width, A epsilon) {
    FOR_EACH_CHUNK(chunk) {
        long long c = chunk.column;
        Gradients value = {0, 0, 0};
        if (chunk.inside()) {
            A average = 0, inverse = 0;
            if (!BY_ROW) {
                average = mean[c];
                inverse = 1 / sqrt(variance[c] + epsilon);
            }
            FOR_EACH_ROW_OF(chunk, row) {
                if (BY_ROW) {
                    average = mean[row];
                    inverse = 1 / sqrt(variance[row] + epsilon);
                }
                A g = A(grad[row * channels + c]);
                value.join({A(!mask || mask[row]), g, g * ((A(x[row * channels + c]) - average) * inverse)});
            }
        }
        keep(partial, chunk, value);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) batch_normalization_backward(
    const T* grad, const T* x, const A* mean, const A* variance, const A* scale, const bool* mask, T* grad_x,
    A* grad_scale, A* grad_offset, A* partial, unsigned* arrivals, long long rows, long long channels, int chunks,
    int width, double epsilon) {
    keep_gradients<false>(grad, x, mean, variance, mask, partial, rows, channels, chunks, width, A(epsilon));
    grid_barrier(arrivals);
    FOR_EACH_CHUNK(chunk) {
        Gradients all = joined<Gradients>(partial, chunk);
        long long c = chunk.column;
        if (!chunk.inside()) continue;
        A average = mean[c], inverse = 1 / sqrt(variance[c] + A(epsilon));
        A factor = scale ? inverse * scale[c] : inverse;
        A share = 1 / larger(all.count, A(1)), by_offset = all.offset * share, by_scale = all.scale * share;
        FOR_EACH_ROW_OF(chunk, row) {
            A g = A(grad[row * channels + c]);
            if (!mask || mask[row]) g -= by_offset + (A(x[row * channels + c]) - average) * inverse * by_scale;
            grad_x[row * channels + c] = T(g * factor);
        }
        if (chunk.index == 0 && chunk.speaks()) {
            grad_scale[c] = all.scale;
            grad_offset[c] = all.offset;
        }
    }
}

// The columns' sums come first: they are written while the blocks go through the rows.
extern "C" __global__ void __launch_bounds__(THREADS, 2) layer_normalization_backward(
    const T* grad, const T* x, const A* mean, const A* variance, const A* scale, T* grad_x, A* grad_scale,
    A* grad_offset, A* partial, unsigned* arrivals, long long rows, long long channels, int chunks, int width,
    double epsilon) {
    keep_gradients<true>(grad, x, mean, variance, nullptr, partial, rows, channels, chunks, width, A(epsilon));
    FOR_EACH_ROW(row, rows) {
        long long start = row * channels, columns = row < rows ? channels : 0;
        A average = columns ? mean[row] : A(0), inverse = columns ? 1 / sqrt(variance[row] + A(epsilon)) : A(0);
        A sum = 0, product = 0;
        FOR_EACH_COLUMN(j, columns) {
            A g = A(grad[start + j]) * (scale ? scale[j] : A(1));
            sum += g;
            product += g * (A(x[start + j]) - average);
        }
        sum = row_reduce<Sum>(sum) / channels;
        product = row_reduce<Sum>(product) * inverse / channels;
        FOR_EACH_COLUMN(j, columns) {
            A g = A(grad[start + j]) * (scale ? scale[j] : A(1));
            A normalized = (A(x[start + j]) - average) * inverse;
            grad_x[start + j] = T((g - sum - normalized * product) * inverse);
        }
    }
    grid_barrier(arrivals);
    FOR_EACH_TILE(chunk) {
        Gradients all = joined<Gradients>(partial, chunk);
        if (chunk.speaks()) {
            grad_scale[chunk.column] = all.scale;
            grad_offset[chunk.column] = all.offset;
        }
    }
}
