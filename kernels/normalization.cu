// Layer normalization: a team of threads a row, the variance in a second pass. Batch normalization: each block sums up a
// chunk of the rows for a tile of channels, a second kernel joins the chunks (always in the same order), a third applies
// them; the variance by Welford's method, so that the first kernel reads x once.
#include "rows.cuh"

#define THREADS 256

// -- rows

extern "C" __global__ void layer_normalization(
    const T* x, const T* scale, const T* offset, T* output, T* mean, T* variance, long long rows, long long features,
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
            if (scale) value *= A(scale[j]);
            if (offset) value += A(offset[j]);
            output[start + j] = T(value);
        }
        if (width && threadIdx.x == 0) {
            mean[row] = T(average);
            variance[row] = T(spread);
        }
    }
}

extern "C" __global__ void layer_normalization_backward(
    const T* grad, const T* x, const T* mean, const T* variance, const T* scale, T* grad_x, long long rows,
    long long features, double epsilon) {
    FOR_EACH_ROW(row, rows) {
        long long start = row * features, width = row < rows ? features : 0;
        A average = width ? A(mean[row]) : A(0), inverse = width ? 1 / sqrt(A(variance[row]) + A(epsilon)) : A(0);
        A sum = 0, product = 0;
        FOR_EACH_COLUMN(j, width) {
            A g = A(grad[start + j]) * (scale ? A(scale[j]) : A(1));
            sum += g;
            product += g * (A(x[start + j]) - average);
        }
        sum = row_reduce<Sum>(sum) / features;
        product = row_reduce<Sum>(product) * inverse / features;
        FOR_EACH_COLUMN(j, width) {
            A g = A(grad[start + j]) * (scale ? A(scale[j]) : A(1));
            A normalized = (A(x[start + j]) - average) * inverse;
            grad_x[start + j] = T((g - sum - normalized * product) * inverse);
        }
    }
}

// -- columns: blocks (x: columns, y: rows) of THREADS threads; gridDim.y chunks of the rows

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

// Joins the values of the threads of a column; the result is that of threadIdx.y == 0. blockDim.y is a power of two.
template <class Value>
__device__ Value join_column(Value value) {
    __shared__ Value all[THREADS];
    int place = threadIdx.y * blockDim.x + threadIdx.x;
    all[place] = value;
    __syncthreads();
    for (int half = blockDim.y / 2; half; half >>= 1) {
        if (threadIdx.y < half) {
            value.join(all[place + half * blockDim.x]);
            all[place] = value;
        }
        __syncthreads();
    }
    return value;
}

struct Chunk {
    long long column, first, last;

    __device__ Chunk(long long rows) {
        long long length = (rows + gridDim.y - 1) / gridDim.y;
        column = (long long)blockIdx.x * blockDim.x + threadIdx.x;
        first = blockIdx.y * length + threadIdx.y;
        last = (blockIdx.y + 1) * length < rows ? (blockIdx.y + 1) * length : rows;
    }
};

#define FOR_EACH_ROW_OF(chunk, row) for (long long row = chunk.first; row < chunk.last; row += blockDim.y)

// partial is (chunks, 3, channels)
__device__ inline void keep(A* partial, long long channels, long long column, A first, A second, A third) {
    A* at = partial + blockIdx.y * 3 * channels + column;
    at[0] = first;
    at[channels] = second;
    at[2 * channels] = third;
}

template <class Value>
__device__ Value joined(const A* partial, long long channels, long long chunks) {
    Value value = {0, 0, 0};
    long long column = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (column < channels) {
        for (long long chunk = threadIdx.y; chunk < chunks; chunk += blockDim.y) {
            const A* at = partial + chunk * 3 * channels + column;
            value.join({at[0], at[channels], at[2 * channels]});
        }
    }
    return join_column(value);
}

extern "C" __global__ void batch_moments(
    const T* x, const bool* mask, A* partial, long long rows, long long channels) {
    Chunk chunk(rows);
    Moments value = {0, 0, 0};
    if (chunk.column < channels) {
        FOR_EACH_ROW_OF(chunk, row) {
            if (!mask || mask[row]) value.add(A(x[row * channels + chunk.column]));
        }
    }
    value = join_column(value);
    if (chunk.column < channels && threadIdx.y == 0) {
        keep(partial, channels, chunk.column, value.count, value.mean, value.squares);
    }
}

extern "C" __global__ void join_moments(
    const A* partial, T* mean, T* variance, long long channels, long long chunks) {
    Moments value = joined<Moments>(partial, channels, chunks);
    long long column = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (column < channels && threadIdx.y == 0) {
        mean[column] = T(value.mean);
        variance[column] = T(value.squares / larger(value.count, A(1)));
    }
}

extern "C" __global__ void normalize(
    const T* x, const T* mean, const T* variance, const T* scale, const T* offset, T* output, long long rows,
    long long channels, double epsilon) {
    Chunk chunk(rows);
    long long c = chunk.column;
    if (c >= channels) return;
    A average = A(mean[c]), shift = offset ? A(offset[c]) : A(0);
    A factor = (scale ? A(scale[c]) : A(1)) / sqrt(A(variance[c]) + A(epsilon));
    FOR_EACH_ROW_OF(chunk, row) {
        output[row * channels + c] = T((A(x[row * channels + c]) - average) * factor + shift);
    }
}

// Sums over rows of grad and grad * normalized; the statistics are those of the rows if `by_row`, or else of the columns.
extern "C" __global__ void gradient_sums(
    const T* grad, const T* x, const T* mean, const T* variance, const bool* mask, A* partial, long long rows,
    long long channels, double epsilon, bool by_row) {
    Chunk chunk(rows);
    long long c = chunk.column;
    Gradients value = {0, 0, 0};
    if (c < channels) {
        A average = 0, inverse = 0;
        if (!by_row) {
            average = A(mean[c]);
            inverse = 1 / sqrt(A(variance[c]) + A(epsilon));
        }
        FOR_EACH_ROW_OF(chunk, row) {
            if (by_row) {
                average = A(mean[row]);
                inverse = 1 / sqrt(A(variance[row]) + A(epsilon));
            }
            A g = A(grad[row * channels + c]);
            value.join({A(!mask || mask[row]), g, g * ((A(x[row * channels + c]) - average) * inverse)});
        }
    }
    value = join_column(value);
    if (c < channels && threadIdx.y == 0) {
        keep(partial, channels, c, value.count, value.offset, value.scale);
    }
}

// sums is (3, channels): as the chunks, but of all rows
extern "C" __global__ void join_gradients(
    const A* partial, A* sums, T* grad_scale, T* grad_offset, long long channels, long long chunks) {
    Gradients value = joined<Gradients>(partial, channels, chunks);
    long long column = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (column < channels && threadIdx.y == 0) {
        sums[column] = value.count;
        sums[channels + column] = value.offset;
        sums[2 * channels + column] = value.scale;
        grad_offset[column] = T(value.offset);
        grad_scale[column] = T(value.scale);
    }
}

extern "C" __global__ void batch_normalization_backward(
    const T* grad, const T* x, const T* mean, const T* variance, const T* scale, const bool* mask, const A* sums,
    T* grad_x, long long rows, long long channels, double epsilon) {
    Chunk chunk(rows);
    long long c = chunk.column;
    if (c >= channels) return;
    A average = A(mean[c]), inverse = 1 / sqrt(A(variance[c]) + A(epsilon));
    A factor = scale ? inverse * A(scale[c]) : inverse;
    A share = 1 / larger(sums[c], A(1)), by_offset = sums[channels + c] * share, by_scale = sums[2 * channels + c] * share;
    FOR_EACH_ROW_OF(chunk, row) {
        A g = A(grad[row * channels + c]);
        if (!mask || mask[row]) g -= by_offset + (A(x[row * channels + c]) - average) * inverse * by_scale;
        grad_x[row * channels + c] = T(g * factor);
    }
}
