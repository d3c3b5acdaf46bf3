// Bias and activation in one pass over memory, each way. ACTIVATION names the function; one module is compiled for each.
#include "activations.cuh"

#ifndef ACTIVATION
#define ACTIVATION relu
#endif
#define JOIN(a, b) a##b
#define SLOPE_OF(name) JOIN(name, _slope)

// output = activation(x + bias), where x is (size / units, units); z = x + bias is kept unless `z` is null.
extern "C" __global__ void bias_activation(
    const T* x, const T* bias, T* output, T* z, long long size, int units) {
    FOR_EACH(i, size) {
        A value = A(x[i]);
        if (bias) value += A(bias[i % units]);
        if (z) z[i] = T(value);
        output[i] = T(activations::ACTIVATION(value));
    }
}

// x = relu(x), in place, and a bit for each value, set where it is above 0. A warp writes a word of a row; rows are `words`
// words long, of which the last ones reach beyond the row's `units` values.
extern "C" __global__ void relu_and_mask(T* x, unsigned* mask, long long bits, int units, int words) {
    FOR_EACH(i, bits) {  // all or none of a warp's threads
        long long word = i / 32, column = word % words * 32 + i % 32;
        bool above = false;
        if (column < units) {
            T* place = x + word / words * units + column;
            A value = A(*place);
            above = value > A(0);
            *place = T(activations::relu(value));
        }
        unsigned all = __ballot_sync(0xffffffffu, above);
        if (i % 32 == 0) mask[word] = all;
    }
}

// grad_z = grad where the bit of the value is set, else 0; NaN stays
extern "C" __global__ void masked_backward(
    const T* grad, const unsigned* mask, T* grad_z, long long size, int units, int words) {
    FOR_EACH(i, size) {
        long long column = i % units;
        unsigned bit = mask[i / units * words + column / 32] >> column % 32 & 1;
        grad_z[i] = T(A(grad[i]) * A(bit));
    }
}

// grad_z = grad * slope(saved)
extern "C" __global__ void activation_backward(const T* grad, const T* saved, T* grad_z, long long size) {
    FOR_EACH(i, size) {
        grad_z[i] = T(A(grad[i]) * activations::SLOPE_OF(ACTIVATION)(A(saved[i])));
    }
}
