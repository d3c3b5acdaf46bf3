// Copies of arrays to their places, several in one launch.
#include "common.cuh"

// Row y of the grid copies the y-th array, of so many values; a null pointer's are zeros.
extern "C" __global__ void fill_six(
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
