// What a step that is captured reads of the host's, each time it is launched: where its batch is, and where its random
// numbers begin. It moves both on itself, so that the host writes nothing where one step follows another. Several steps
// that are one launch take their learning rates from a list.
#include "common.cuh"

#ifndef WORD
#define WORD unsigned char
#endif

// table[0] is the address of an order of rows, or 0 where they are taken as they lie; table[1] the place of the batch in
// it; table[2 ...] the addresses of arrays, from the one numbered `first` on. Row y of the grid gathers the y-th of these,
// whose rows are so many words wide.
extern "C" __global__ void gather_batch(
    const unsigned long long* table, int first, WORD* out_0, WORD* out_1, WORD* out_2, long long rows, long long width_0,
    long long width_1, long long width_2) {
    const long long* order = reinterpret_cast<const long long*>(table[0]);
    const WORD* array = reinterpret_cast<const WORD*>(table[2 + first + blockIdx.y]);
    WORD* out = blockIdx.y == 0 ? out_0 : blockIdx.y == 1 ? out_1 : out_2;
    long long width = blockIdx.y == 0 ? width_0 : blockIdx.y == 1 ? width_1 : width_2, place = (long long)table[1];
    FOR_EACH(i, rows * width) {
        long long row = place + i / width;
        out[i] = array[(order ? order[row] : row) * width + i % width];
    }
}

// After the batch: the place moves by its rows, each of `count` generators by what was drawn from it, and the learning rate
// of the next step of this launch comes to the addresses where the optimizer reads it.
extern "C" __global__ void move_on(
    unsigned long long* table, long long rows, unsigned long long* states, const unsigned long long* drawn, int count,
    const double* rate, const unsigned long long* readers, int reading) {
    if (threadIdx.x == 0) table[1] += rows;
    for (int i = threadIdx.x; i < reading; i += blockDim.x) *reinterpret_cast<double*>(readers[i]) = *rate;
    for (int i = threadIdx.x; i < count; i += blockDim.x) {  // (seed, counter of 128 bits)
        unsigned long long low = states[3 * i + 1] + drawn[2 * i];
        states[3 * i + 2] += drawn[2 * i + 1] + (low < drawn[2 * i]);
        states[3 * i + 1] = low;
    }
}

// Up to four numbers from the host, which come with the launch: no copy has to wait for another.
extern "C" __global__ void write_words(
    unsigned long long* at, int first, int count, unsigned long long a, unsigned long long b, unsigned long long c,
    unsigned long long d) {
    unsigned long long values[] = {a, b, c, d};
    if ((int)threadIdx.x < count) at[first + threadIdx.x] = values[threadIdx.x];
}

// The learning rates of the steps of a launch but the first one's; a single thread, to which each is a register.
extern "C" __global__ void write_rates(
    double* at, int count, double a, double b, double c, double d, double e, double f, double g, double h, double i,
    double j, double k, double l, double m, double n, double o) {
    const double values[] = {a, b, c, d, e, f, g, h, i, j, k, l, m, n, o};
#pragma unroll
    for (int which = 0; which < 15; ++which)
        if (which < count) at[which] = values[which];
}
