// Rows taken by index, a thread an element; and rows added up by index. The places are sorted by index first, so that one
// team of threads owns all that goes into a row and adds it in order: no atomics, the same bits every time.
#include "common.cuh"

// An index that is out of range gives NaN: finding it on the host would mean waiting for the device.
extern "C" __global__ void gather(
    const T* table, const long long* indices, T* output, long long size, long long rows, long long features) {
    FOR_EACH(i, size) {
        long long index = indices[i / features];
        output[i] = index >= 0 && index < rows ? table[index * features + i % features] : T(not_a_number());
    }
}

// The stable sort of a few thousand indices, by counting what comes before each: order[rank] = place, ordered[rank] = index.
// n * n comparisons, but in one launch, which a graph can hold.
extern "C" __global__ void rank(const long long* indices, long long* order, long long* ordered, long long n) {
    __shared__ long long tile[256];
    long long place = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    long long index = place < n ? indices[place] : 0, before = 0;
    for (long long start = 0; start < n; start += 256) {
        int length = n - start < 256 ? int(n - start) : 256;
        __syncthreads();
        if (threadIdx.x < length) tile[threadIdx.x] = indices[start + threadIdx.x];
        __syncthreads();
        for (int k = 0; k < length; k++) before += tile[k] < index || (tile[k] == index && start + k < place);
    }
    if (place < n) {
        order[before] = place;
        ordered[before] = index;
    }
}

// output[r] = sum of values[order[k]] over the k with ordered[k] = r, ascending. Blocks are (features, places): the threads
// of the first place of an index add all of that index. Rows that get nothing stay as they are.
extern "C" __global__ void add_ordered(
    const T* values, const long long* order, const long long* ordered, T* output, long long n, long long rows,
    long long features) {
    for (long long k = (long long)blockIdx.x * blockDim.y + threadIdx.y; k < n; k += (long long)gridDim.x * blockDim.y) {
        long long index = ordered[k];
        if ((k && ordered[k - 1] == index) || index < 0 || index >= rows) continue;
        long long low = k + 1, high = n;  // the first place of the next index lies in between
        while (low < high) {
            long long middle = (low + high) / 2;
            if (ordered[middle] == index) low = middle + 1;
            else high = middle;
        }
        for (long long f = threadIdx.x; f < features; f += blockDim.x) {
            A sum = 0;
            for (long long j = k; j < low; j++) sum += A(values[order[j] * features + f]);
            output[index * features + f] = T(sum);
        }
    }
}
