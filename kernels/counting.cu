// Histograms. Integers add up to the same in any order, so atomics do not matter for the result.

extern "C" __global__ void count_each(const long long* places, unsigned long long* counts, long long size) {
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < size;
         i += (long long)gridDim.x * blockDim.x) {
        atomicAdd(&counts[places[i]], 1ull);
    }
}
