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

// grad_z = grad * slope(saved)
extern "C" __global__ void activation_backward(const T* grad, const T* saved, T* grad_z, long long size) {
    FOR_EACH(i, size) {
        grad_z[i] = T(A(grad[i]) * activations::SLOPE_OF(ACTIVATION)(A(saved[i])));
    }
}
