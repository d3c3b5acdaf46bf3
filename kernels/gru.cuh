// What a GRU's gradient does in a step beside the products, for gru.cu and tensor_gru.cu.
#pragma once

#include "activations.cuh"

using activations::hyperbolic;
using activations::sigmoid;

// What the gradient of a step takes beside the gradient that arrives.
struct Step {
    A arrived, z, r, g, inner, before;
    bool present;

    __device__ void load(
        const T* gates, const T* within, const T* states, const bool* mask, const T* grad, long long sample, int t,
        int time, int units, int u) {
        long long step = sample * time + t;
        present = !mask || mask[step];
        arrived = grad ? A(grad[step * units + u]) : A(0);
        z = A(gates[step * 3 * units + u]);
        r = A(gates[(step * 3 + 1) * units + u]);
        g = A(gates[(step * 3 + 2) * units + u]);
        inner = A(within[step * units + u]);
        before = A(states[(step + sample) * units + u]);
    }
    // by_h: of this step's state; then what goes to the state before past the products. d: by z, r, g and by inner, or
    // by what comes of its product; without reset_after that by r is for `back_through_reset`.
    __device__ void back(bool reset_after, A& by_h, A (&d)[4]) const {
        by_h += arrived;
        d[0] = d[1] = d[2] = d[3] = 0;
        if (!present) return;
        d[0] = by_h * (before - g) * z * (1 - z);
        d[2] = by_h * (1 - z) * (1 - g * g);
        d[3] = reset_after ? d[2] * r : d[2];
        if (reset_after) d[1] = d[2] * inner * r * (1 - r);
        by_h *= z;
    }
    // by_inner: of r * h[t-1]. Returns the gradient by what r is the sigmoid of.
    __device__ A back_through_reset(A by_inner, A& by_h) const {
        if (!present) return 0;
        by_h += by_inner * r;
        return by_inner * before * r * (1 - r);
    }
};
