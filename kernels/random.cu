// Random numbers: one thread a Philox block, which makes four values, or two of 64-bit draws, and stores them at once.
//
// Where bits must equal the reference's, products and sums are rounded one by one (rounded_...), never fused.
#include "common.cuh"
#include "philox.cuh"

#ifndef INTEGER
#define INTEGER long long
#endif

template <class V, int N> struct alignas(N * sizeof(V)) Pack {
    V at[N];
};

// values -> out[group * N ...], as far as `size` goes.
template <class V, int N>
__device__ inline void store(V* out, long long group, long long size, const Pack<V, N>& values) {
    long long first = group * N;
    if (first + N <= size && (unsigned long long)out % sizeof(values) == 0) {
        *reinterpret_cast<Pack<V, N>*>(out + first) = values;
        return;
    }
#pragma unroll
    for (int i = 0; i < N; i++) {
        if (first + i < size) out[first + i] = values.at[i];
    }
}

#define FOR_EACH_GROUP(group, n, size) FOR_EACH(group, ((size) + (n) - 1) / (n))

__device__ inline float rounded_product(float a, float b) { return __fmul_rn(a, b); }
__device__ inline double rounded_product(double a, double b) { return __dmul_rn(a, b); }
__device__ inline float rounded_sum(float a, float b) { return __fadd_rn(a, b); }
__device__ inline double rounded_sum(double a, double b) { return __dadd_rn(a, b); }

// Float32 and narrower take a word each, four of a block; float64 takes a draw, two of a block.
constexpr int VALUES = sizeof(A) == 8 ? 2 : 4;
__device__ inline float whole(const Words& words, int i, float) { return (float)words.at[i]; }
__device__ inline double whole(const Words& words, int i, double) { return (double)draw(words, i); }
__device__ inline float top_bits(const Words& words, int i, float) { return (float)(words.at[i] >> 8); }
__device__ inline double top_bits(const Words& words, int i, double) { return (double)(draw(words, i) >> 11); }

extern "C" __global__ void random_bits(
    unsigned* out, const unsigned long long* state, unsigned long long seed,
    unsigned long long low, unsigned long long high, long long size) {
    Philox philox = philox_at(state, seed, low, high);
    FOR_EACH_GROUP(group, 4, size) {
        Words words = philox.block(group);
        Pack<unsigned, 4> values = {{words.at[0], words.at[1], words.at[2], words.at[3]}};
        store(out, group, size, values);
    }
}

// out = top bits * step + start
extern "C" __global__ void random_uniform(
    T* out, double step, double start, const unsigned long long* state, unsigned long long seed,
    unsigned long long low, unsigned long long high, long long size) {
    Philox philox = philox_at(state, seed, low, high);
    FOR_EACH_GROUP(group, VALUES, size) {
        Words words = philox.block(group);
        Pack<T, VALUES> values;
#pragma unroll
        for (int i = 0; i < VALUES; i++) {
            values.at[i] = T(rounded_sum(rounded_product(top_bits(words, i, A(0)), A(step)), A(start)));
        }
        store(out, group, size, values);
    }
}

// Box and Muller, each pair from two words or draws of one block.
extern "C" __global__ void random_normal(
    T* out, double mean, double stddev, const unsigned long long* state, unsigned long long seed,
    unsigned long long low, unsigned long long high, long long size) {
    Philox philox = philox_at(state, seed, low, high);
    const A unit = sizeof(A) == 8 ? A(5.421010862427522e-20) : A(2.3283064365386963e-10);  // 2^-64, 2^-32
    FOR_EACH_GROUP(group, VALUES, size) {
        Words words = philox.block(group);
        Pack<T, VALUES> values;
#pragma unroll
        for (int i = 0; i < VALUES; i += 2) {
            A radius = A(stddev) * sqrt(A(-2) * log((whole(words, i, A(0)) + A(0.5)) * unit));
            A angle = A(6.283185307179586) * ((whole(words, i + 1, A(0)) + A(0.5)) * unit);
            values.at[i] = T(radius * cos(angle) + A(mean));
            values.at[i + 1] = T(radius * sin(angle) + A(mean));
        }
        store(out, group, size, values);
    }
}

// out = start + floor(draw * span / 2^64)
extern "C" __global__ void random_integers(
    INTEGER* out, unsigned long long start, unsigned long long span, const unsigned long long* state,
    unsigned long long seed, unsigned long long low, unsigned long long high, long long size) {
    Philox philox = philox_at(state, seed, low, high);
    FOR_EACH_GROUP(group, 2, size) {
        Words words = philox.block(group);
        Pack<INTEGER, 2> values = {{(INTEGER)(start + __umul64hi(draw(words, 0), span)),
                                    (INTEGER)(start + __umul64hi(draw(words, 1), span))}};
        store(out, group, size, values);
    }
}

extern "C" __global__ void random_bernoulli(
    bool* out, unsigned threshold, const unsigned long long* state, unsigned long long seed,
    unsigned long long low, unsigned long long high, long long size) {
    Philox philox = philox_at(state, seed, low, high);
    FOR_EACH_GROUP(group, 4, size) {
        Words words = philox.block(group);
        Pack<bool, 4> values = {{words.at[0] < threshold, words.at[1] < threshold, words.at[2] < threshold,
                                 words.at[3] < threshold}};
        store(out, group, size, values);
    }
}

// Draws whose low bits, those of `mask`, are their own number.
extern "C" __global__ void permutation_keys(
    unsigned long long* keys, unsigned long long mask, const unsigned long long* state, unsigned long long seed,
    unsigned long long low, unsigned long long high, long long size) {
    Philox philox = philox_at(state, seed, low, high);
    FOR_EACH_GROUP(group, 2, size) {
        Words words = philox.block(group);
        unsigned long long first = group * 2;
        Pack<unsigned long long, 2> values = {{(draw(words, 0) & ~mask) | first, (draw(words, 1) & ~mask) | (first + 1)}};
        store(keys, group, size, values);
    }
}

// x times `scale` where word >= threshold, and times 0 elsewhere, so that NaN and infinity stay seen.
extern "C" __global__ void dropout(
    const T* x, T* out, unsigned threshold, double scale, const unsigned long long* state, unsigned long long seed,
    unsigned long long low, unsigned long long high, long long size) {
    Philox philox = philox_at(state, seed, low, high);
    FOR_EACH_GROUP(group, 4, size) {
        Words words = philox.block(group);
        Pack<T, 4> values;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            long long at = group * 4 + i;
            if (at < size) values.at[i] = T(A(x[at]) * (words.at[i] >= threshold ? A(scale) : A(0)));
        }
        store(out, group, size, values);
    }
}
