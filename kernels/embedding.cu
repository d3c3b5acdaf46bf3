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

// The stable sort of each run of `run` indices by itself, by counting what comes before each: order[rank] = place,
// ordered[rank] = index. run is a multiple of the block's threads: a block is in one run.
extern "C" __global__ void rank(
    const long long* indices, long long* order, long long* ordered, long long n, long long run) {
    __shared__ long long tile[256];
    long long place = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    long long first = (long long)blockIdx.x * blockDim.x / run * run, last = first + run < n ? first + run : n;
    long long index = place < n ? indices[place] : 0, before = first;
    for (long long start = first; start < last; start += 256) {
        int length = last - start < 256 ? int(last - start) : 256;
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

// Each two sorted runs become one: an element goes as far on as there are elements before it in the other run, of which
// equal ones are only those of the first. A library's sort could not be held by a graph.
extern "C" __global__ void merge_runs(
    const long long* order, const long long* ordered, long long* merged_order, long long* merged, long long n,
    long long run) {
    FOR_EACH(i, n) {
        long long index = ordered[i], first = i / (2 * run) * (2 * run);
        bool second = i - first >= run;
        long long low = second ? first : first + run, high = low + run;
        if (low > n) low = n;
        if (high > n) high = n;
        long long start = low;
        while (low < high) {
            long long middle = (low + high) / 2;
            if (ordered[middle] < index || (second && ordered[middle] == index)) low = middle + 1;
            else high = middle;
        }
        long long at = second ? i - run + (low - start) : i + (low - start);
        merged_order[at] = order[i];
        merged[at] = index;
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
