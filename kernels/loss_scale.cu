// Dynamic loss scaling. The state: scale, finite steps since it changed, skipped steps, whether this one is to be skipped.
#include "common.cuh"

#define SCALE 0
#define FINITE 1
#define SKIPPED 2
#define FOUND 3

// Threads that find something all write the same.
extern "C" __global__ void unscale(T* gradients, float* state, long long size) {
    A scale = A(state[SCALE]);
    bool found = false;
    FOR_EACH(i, size) {
        A gradient = A(gradients[i]) / scale;
        found |= !isfinite(gradient);
        gradients[i] = T(gradient);
    }
    if (found) state[FOUND] = 1;
}

extern "C" __global__ void copy_if_skipped(T* target, const T* source, const float* state, long long size) {
    if (state[FOUND] == 0) return;
    FOR_EACH(i, size) target[i] = source[i];
}

extern "C" __global__ void adjust_scale(float* state, long long growth_steps) {
    float scale = state[SCALE], finite = state[FINITE] + 1;
    if (state[FOUND] != 0) {
        state[SKIPPED] += 1;
        state[SCALE] = fmaxf(scale / 2, 1.17549435e-38f);
        finite = 0;
    } else if (finite >= growth_steps) {
        state[SCALE] = isfinite(scale * 2) ? scale * 2 : scale;
        finite = 0;
    }
    state[FINITE] = finite;
    state[FOUND] = 0;
}
