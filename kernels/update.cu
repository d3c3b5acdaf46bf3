// Optimizer steps over the flat buffer: one thread an element and one pass over memory, whatever the optimizer.
//
// Numbers come as double and are rounded to A once, as the reference rounds them. Slots that an optimizer lacks are null.
#include "common.cuh"

extern "C" __global__ void sgd_step(
    T* values, const T* gradients, T* velocity, double learning_rate, double momentum, int nesterov, long long size) {
    A rate = A(learning_rate), factor = A(momentum);
    FOR_EACH(i, size) {
        A step = -A(gradients[i]) * rate;
        if (velocity) {
            A moved = A(velocity[i]) * factor + step;
            velocity[i] = T(moved);
            step = nesterov ? moved * factor + step : moved;
        }
        values[i] = T(A(values[i]) + step);
    }
}

extern "C" __global__ void rmsprop_step(
    T* values, const T* gradients, T* square, T* mean, T* velocity, double learning_rate, double rho, double momentum,
    double epsilon, long long size) {
    A rate = A(learning_rate), keep = A(rho), take = A(1 - rho), factor = A(momentum), offset = A(epsilon);
    FOR_EACH(i, size) {
        A gradient = A(gradients[i]);
        A variance = A(square[i]) * keep + gradient * gradient * take;
        square[i] = T(variance);
        if (mean) {
            A moved = A(mean[i]) * keep + gradient * take;
            mean[i] = T(moved);
            variance = larger(variance - moved * moved, A(0));  // rounding can leave it a little below 0
        }
        A step = gradient / sqrt(variance + offset) * rate;
        if (velocity) {
            step += A(velocity[i]) * factor;
            velocity[i] = T(step);
        }
        values[i] = T(A(values[i]) - step);
    }
}

extern "C" __global__ void adagrad_step(
    T* values, const T* gradients, T* total, double learning_rate, double epsilon, long long size) {
    A rate = A(learning_rate), offset = A(epsilon);
    FOR_EACH(i, size) {
        A gradient = A(gradients[i]);
        A sum = A(total[i]) + gradient * gradient;
        total[i] = T(sum);
        values[i] = T(A(values[i]) - gradient / sqrt(sum + offset) * rate);
    }
}

extern "C" __global__ void adam_step(
    T* values, const T* gradients, T* mean, T* square, T* peak, double rate, double beta_1, double beta_2,
    double epsilon, long long size) {
    A step = A(rate), take_1 = A(1 - beta_1), take_2 = A(1 - beta_2), offset = A(epsilon);
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
        values[i] = T(A(values[i]) - first / (sqrt(second) + offset) * step);
    }
}

extern "C" __global__ void nadam_step(
    T* values, const T* gradients, T* mean, T* square, double mean_rate, double rate, double correction, double beta_1,
    double beta_2, double epsilon, long long size) {
    A step = A(rate), mean_step = A(mean_rate), scale = A(correction), offset = A(epsilon);
    A take_1 = A(1 - beta_1), take_2 = A(1 - beta_2);
    FOR_EACH(i, size) {
        A gradient = A(gradients[i]), first = A(mean[i]), second = A(square[i]);
        first += (gradient - first) * take_1;
        second += (gradient * gradient - second) * take_2;
        mean[i] = T(first);
        square[i] = T(second);
        values[i] = T(A(values[i]) - (first * mean_step + gradient * step) / (sqrt(second * scale) + offset));
    }
}

extern "C" __global__ void decay_weights(T* values, double factor, long long size) {
    A scale = A(factor);
    FOR_EACH(i, size) values[i] = T(A(values[i]) * scale);
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

// The factor is one thread's work: double precision is slow on most GPUs.
extern "C" __global__ void clip_norm(T* gradients, const double* square, double limit, long long size) {
    __shared__ A factor;
    if (threadIdx.x == 0) {
        double norm = sqrt(*square);
        double scale = limit / (norm > limit || norm != norm ? norm : limit);
        factor = A(T(A(scale)));
        if (!isfinite(norm)) factor = not_a_number();
    }
    __syncthreads();
    FOR_EACH(i, size) gradients[i] = T(A(gradients[i]) * factor);
}

extern "C" __global__ void clip_value(T* gradients, double limit, long long size) {
    A bound = A(limit);
    FOR_EACH(i, size) gradients[i] = T(smaller(larger(A(gradients[i]), -bound), bound));
}
