// Optimizer steps over the flat buffer: one thread an element and one pass over memory, whatever the optimizer.
//
// `scalars` begins with the learning rate; what the step counts follows. Slots that an optimizer lacks are null.
#include "common.cuh"

// What weight decay leaves of a value.
__device__ inline A kept(const double* scalars, double decay) { return decay ? A(1 - decay * scalars[0]) : A(1); }

extern "C" __global__ void sgd_step(
    T* values, const T* gradients, T* velocity, const double* scalars, double decay, A momentum, int nesterov,
    long long size) {
    A rate = A(scalars[0]), left = kept(scalars, decay);
    FOR_EACH(i, size) {
        A step = -A(gradients[i]) * rate;
        if (velocity) {
            A moved = A(velocity[i]) * momentum + step;
            velocity[i] = T(moved);
            step = nesterov ? moved * momentum + step : moved;
        }
        values[i] = T(A(values[i]) * left + step);
    }
}

extern "C" __global__ void rmsprop_step(
    T* values, const T* gradients, T* square, T* mean, T* velocity, const double* scalars, double decay, A keep, A take,
    A momentum, A epsilon, long long size) {
    A rate = A(scalars[0]), left = kept(scalars, decay);
    FOR_EACH(i, size) {
        A gradient = A(gradients[i]);
        A variance = A(square[i]) * keep + gradient * gradient * take;
        square[i] = T(variance);
        if (mean) {
            A moved = A(mean[i]) * keep + gradient * take;
            mean[i] = T(moved);
            variance = larger(variance - moved * moved, A(0));  // rounding can leave it a little below 0
        }
        A step = gradient / sqrt(variance + epsilon) * rate;
        if (velocity) {
            step += A(velocity[i]) * momentum;
            velocity[i] = T(step);
        }
        values[i] = T(A(values[i]) * left - step);
    }
}

extern "C" __global__ void adagrad_step(
    T* values, const T* gradients, T* total, const double* scalars, double decay, A epsilon, long long size) {
    A rate = A(scalars[0]), left = kept(scalars, decay);
    FOR_EACH(i, size) {
        A gradient = A(gradients[i]);
        A sum = A(total[i]) + gradient * gradient;
        total[i] = T(sum);
        values[i] = T(A(values[i]) * left - gradient / sqrt(sum + epsilon) * rate);
    }
}

// Whether all other blocks have read the scalars: `readers` counts them, and is 0 again for the next launch.
__device__ inline bool last_to_read(double* readers) {
    __threadfence();
    bool last = atomicAdd(readers, 1.0) == gridDim.x - 1;
    __threadfence();
    if (last) *readers = 0;
    return last;
}

// scalars: learning rate, t, readers. A block's first thread computes what all elements share; the last one counts.
extern "C" __global__ void adam_step(
    T* values, const T* gradients, T* mean, T* square, T* peak, double* scalars, double decay, double beta_1,
    double beta_2, A take_1, A take_2, A epsilon, long long size) {
    __shared__ A rate;
    if (threadIdx.x == 0) {
        double t = scalars[1] + 1;
        rate = A(scalars[0] * sqrt(1 - pow(beta_2, t)) / (1 - pow(beta_1, t)));
        if (last_to_read(scalars + 2)) scalars[1] = t;
    }
    __syncthreads();
    A left = kept(scalars, decay);
    FOR_EACH(i, size) {
        A gradient = A(gradients[i]), first = A(mean[i]), second = A(square[i]);
        first += (gradient - first) * take_1;
        second += (gradient * gradient - second) * take_2;
        mean[i] = T(first);
        square[i] = T(second);
        if (peak) {
            second = larger(A(peak[i]), second);
            peak[i] = T(second);
        }
        values[i] = T(A(values[i]) * left - first / (sqrt(second) + epsilon) * rate);
    }
}

// scalars: learning rate, t, u[1] ... u[t], readers
extern "C" __global__ void nadam_step(
    T* values, const T* gradients, T* mean, T* square, double* scalars, double decay, double beta_1, double beta_2,
    double momentum_decay, A take_1, A take_2, A epsilon, long long size) {
    __shared__ A mean_rate, rate, scale;
    if (threadIdx.x == 0) {
        double t = scalars[1] + 1;
        double now = beta_1 * (1 - 0.5 * pow(momentum_decay, t)), ahead = beta_1 * (1 - 0.5 * pow(momentum_decay, t + 1));
        double product = scalars[2] * now;
        mean_rate = A(scalars[0] * ahead / (1 - product * ahead));
        rate = A(scalars[0] * (1 - now) / (1 - product));
        scale = A(1 / (1 - pow(beta_2, t)));
        if (last_to_read(scalars + 3)) {
            scalars[1] = t;
            scalars[2] = product;
        }
    }
    __syncthreads();
    A left = kept(scalars, decay);
    FOR_EACH(i, size) {
        A gradient = A(gradients[i]), first = A(mean[i]), second = A(square[i]);
        first += (gradient - first) * take_1;
        second += (gradient * gradient - second) * take_2;
        mean[i] = T(first);
        square[i] = T(second);
        A step = (first * mean_rate + gradient * rate) / (sqrt(second * scale) + epsilon);
        values[i] = T(A(values[i]) * left - step);
    }
}

extern "C" __global__ void decay_weights(T* values, const double* scalars, double decay, long long size) {
    A left = kept(scalars, decay);
    FOR_EACH(i, size) values[i] = T(A(values[i]) * left);
}

// The sum of a block's values, in thread 0, always in the same order.
__device__ inline double sum_of_block(double value) {
    __shared__ double partial[32];
    for (int distance = 16; distance; distance >>= 1) value += __shfl_xor_sync(0xffffffffu, value, distance);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
    __syncthreads();
    for (int warp = 1; warp < (int)blockDim.x / 32; warp++) value += partial[warp];
    return value;
}

// Each block leaves the sum of its squares; sum_partials adds them. The grid follows from the size, and so does the order.
extern "C" __global__ void square_norm(const T* gradients, double* partials, long long size) {
    double sum = 0;
    FOR_EACH(i, size) sum += double(gradients[i]) * double(gradients[i]);
    sum = sum_of_block(sum);
    if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

extern "C" __global__ void sum_partials(const double* partials, double* sum, int count) {
    double value = 0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) value += partials[i];
    value = sum_of_block(value);
    if (threadIdx.x == 0) *sum = value;
}

// What clipping multiplies gradients of this norm by.
__device__ inline A clipping(double square, double limit) {
    double norm = sqrt(square);
    return isfinite(norm) ? A(T(A(limit / (norm > limit ? norm : limit)))) : not_a_number();
}

// The factor is one thread's work: double precision is slow on most GPUs.
extern "C" __global__ void clip_norm(T* gradients, const double* square, double limit, long long size) {
    __shared__ A factor;
    if (threadIdx.x == 0) factor = clipping(*square, limit);
    __syncthreads();
    FOR_EACH(i, size) gradients[i] = T(A(gradients[i]) * factor);
}

// Row x of the grid shares segment x; each of its blocks takes every gridDim.y-th stretch of it.
#define FOR_EACH_OF_SEGMENT(i, segments) \
    for (long long i = segments[2 * blockIdx.x] + (long long)blockIdx.y * blockDim.x + threadIdx.x; \
         i < segments[2 * blockIdx.x + 1]; i += (long long)gridDim.y * blockDim.x)

extern "C" __global__ void segment_squares(const T* gradients, const long long* segments, double* partials) {
    double sum = 0;
    FOR_EACH_OF_SEGMENT(i, segments) sum += double(gradients[i]) * double(gradients[i]);
    sum = sum_of_block(sum);
    if (threadIdx.x == 0) partials[blockIdx.x * gridDim.y + blockIdx.y] = sum;
}

// Every block adds up its segment's partial sums, at most one a thread.
extern "C" __global__ void clip_segments(
    T* gradients, const long long* segments, const double* partials, double limit) {
    __shared__ A factor;
    double square = sum_of_block(threadIdx.x < gridDim.y ? partials[blockIdx.x * gridDim.y + threadIdx.x] : 0);
    if (threadIdx.x == 0) factor = clipping(square, limit);
    __syncthreads();
    FOR_EACH_OF_SEGMENT(i, segments) gradients[i] = T(A(gradients[i]) * factor);
}

extern "C" __global__ void clip_value(T* gradients, double limit, long long size) {
    A bound = A(limit);
    FOR_EACH(i, size) gradients[i] = T(smaller(larger(A(gradients[i]), -bound), bound));
}

// Gradients into the flat buffer: row y of the grid copies the y-th one, of so many values; a null pointer's are zeros.
extern "C" __global__ void collect_six(
    T* to_0, T* to_1, T* to_2, T* to_3, T* to_4, T* to_5, const T* from_0, const T* from_1, const T* from_2,
    const T* from_3, const T* from_4, const T* from_5, long long size_0, long long size_1, long long size_2,
    long long size_3, long long size_4, long long size_5) {
    auto fill = [](T* to, const T* from, long long size) { FOR_EACH(i, size) to[i] = from ? from[i] : T(0); };
    switch (blockIdx.y) {
        case 0: return fill(to_0, from_0, size_0);
        case 1: return fill(to_1, from_1, size_1);
        case 2: return fill(to_2, from_2, size_2);
        case 3: return fill(to_3, from_3, size_3);
        case 4: return fill(to_4, from_4, size_4);
        default: return fill(to_5, from_5, size_5);
    }
}
