// The transpose of a mean.
#include "common.cuh"

extern "C" __global__ void spread(const T* value, A count, T* output, long long size) {
    T share = T(A(*value) / count);
    FOR_EACH(i, size) output[i] = share;
}
