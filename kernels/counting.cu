// What a step counts: histograms, and what it adds to an epoch's sums. Integers add up to the same in any order, so
// atomics do not matter for the result.
#include "common.cuh"

extern "C" __global__ void count_each(const long long* places, unsigned long long* counts, long long size) {
    FOR_EACH(i, size) atomicAdd(&counts[places[i]], 1ull);
}

extern "C" __global__ void add_scaled(double* total, const T* value, double factor) {
    *total += double(*value) * factor;
}

// One block for all: a pass over what a batch has is over before a second launch would have begun.
extern "C" __global__ void add_binary_matches(
    double* total, double* count, const T* labels, const T* predictions, A threshold, long long samples, long long size) {
    __shared__ unsigned matches;
    if (threadIdx.x == 0) matches = 0;
    __syncthreads();
    unsigned own = 0;
    for (long long i = threadIdx.x; i < size; i += blockDim.x) {
        own += A(A(predictions[i]) > threshold) == A(labels[i]);
    }
    atomicAdd(&matches, own);
    __syncthreads();
    if (threadIdx.x > 0) return;
    *total += matches / (double(size) / double(samples));
    *count += double(samples);
}
