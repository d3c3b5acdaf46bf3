// What all kernels of convolution share: what a result sees along an axis of the image, and what follows its sum.
#pragma once

#include "activations.cuh"

constexpr int NOWHERE = -(1 << 30);

// One axis of a gather: the result at start + o * pace sees, at tap m, the source at o * scale + m * step + offset
// through the kernel's position first + m * every.
struct Axis {
    int length, results, taps, scale, step, offset, first, every, start, pace;
};

__device__ inline Axis forward_axis(int length, int results, int taps, int stride, int before, int dilation) {
    return {length, results, taps, stride, dilation, -before, 0, 1, 0, 1};
}

// For the positions start, start + stride, ... of an image of `size`: they all see the same taps of the kernel, those
// for which start + before - tap * dilation is a multiple of the stride.
__device__ inline Axis backward_axis(int size, int length, int taps, int stride, int before, int dilation, int start) {
    int first = 0, every = 1;
    while (first < stride && (start + before - first * dilation) % stride) first++;
    while (every * dilation % stride) every++;
    int seen = first < stride && first < taps ? (taps - first + every - 1) / every : 0;
    return {length, (size - start + stride - 1) / stride, seen, 1, -(every * dilation / stride),
            (start + before - first * dilation) / stride, first, every, start, stride};
}

// Where a thread stands in the depth of the product: channel and tap.
struct Walk {
    int depth, taps_across, channel, tap, down, across;
    __device__ Walk(int depth, int taps_across, int start) : depth(depth), taps_across(max(1, taps_across)), channel(0), tap(0) {
        move(start);
    }
    __device__ void move(int by) {
        channel += by;
        if (channel >= depth) {  // a division only where a tap ends
            tap += channel / depth;
            channel %= depth;
        }
        down = tap / taps_across;
        across = tap % taps_across;
    }
};

__device__ inline void finish(A value, const T* bias, T* output, T* z, long long place, int filter) {
    if (bias) value += A(bias[filter]);
    if (z) z[place] = T(value);
    output[place] = T(activations::ACTIVATION(value));
}

// Pooled, the pixels come by windows of 2 x 2, from left to right and down. Pixels that are in none do not come.
constexpr int WINDOW = 4;

// A result that takes part in its window, as `finish` would write it; `sum` becomes z + bias.
__device__ inline A contender(A& sum, const T* bias, int filter) {
    if (bias) sum += A(bias[filter]);
    return A(T(activations::ACTIVATION(sum)));
}

// Whether a value wins against one that comes before it in the window, as in pooling.cu: the first NaN stays.
__device__ inline bool beats(A later, A before) { return later > before || (later != later && before == before); }
