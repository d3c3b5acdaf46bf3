// What an LSTM does in a step beside the products, for lstm.cu and tensor_lstm.cu.
#pragma once

#include "activations.cuh"

using activations::hyperbolic;
using activations::sigmoid;

__device__ inline A activated(A z, int part) { return part == 2 ? hyperbolic(z) : sigmoid(z); }

__device__ inline void step_forward(const A (&gate)[4], A& h, A& c) {
    c = gate[1] * c + gate[0] * gate[2];
    h = gate[3] * hyperbolic(c);
}

// What the gradient of a step takes beside the gradients that arrive.
struct Step {
    A arrived, gate[4], c_before, c;
    bool present;

    __device__ void load(
        const T* gates, const T* cells, const bool* mask, const T* grad, long long sample, int t, int time, int units,
        int u) {
        long long step = sample * time + t;
        present = !mask || mask[step];
        arrived = grad ? A(grad[step * units + u]) : A(0);
        for (int p = 0; p < 4; p++) gate[p] = A(gates[(step * 4 + p) * units + u]);
        c_before = A(cells[(step + sample) * units + u]);
        c = A(cells[(step + sample + 1) * units + u]);
    }
    // by_h, by_c: of this step's states; then what goes to the states before past the product. d: by z.
    __device__ void back(A& by_h, A& by_c, A (&d)[4]) const {
        by_h += arrived;
        if (!present) {
            for (int p = 0; p < 4; p++) d[p] = 0;
            return;
        }
        A i = gate[0], f = gate[1], g = gate[2], o = gate[3], bounded = hyperbolic(c);
        A through = by_c + by_h * o * (1 - bounded * bounded);
        d[0] = through * g * i * (1 - i);
        d[1] = through * c_before * f * (1 - f);
        d[2] = through * i * (1 - g * g);
        d[3] = by_h * bounded * o * (1 - o);
        by_c = through * f;
        by_h = 0;
    }
};
