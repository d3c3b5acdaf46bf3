// The activation functions, and the slope of each as a function of its output, or of its input where said so.
#pragma once

#include "common.cuh"

namespace activations {

__device__ inline A exponential(A z) { return exp(z); }
__device__ inline A exponential_slope(A y) { return y; }

__device__ inline A linear(A z) { return z; }
__device__ inline A linear_slope(A) { return A(1); }

__device__ inline A relu(A z) { return larger(z, A(0)); }
__device__ inline A relu_slope(A y) { return A(y > 0); }

__device__ inline A leaky_relu(A z) { return larger(z, A(0.2) * z); }
__device__ inline A leaky_relu_slope(A y) { return y > 0 ? A(1) : A(0.2); }

__device__ inline A relu6(A z) { return smaller(larger(z, A(0)), A(6)); }
__device__ inline A relu6_slope(A y) { return A(y > 0 && y < 6); }

__device__ inline A elu(A z) { return z > 0 ? z : expm1(z); }
__device__ inline A elu_slope(A y) { return smaller(y, A(0)) + 1; }

#define SELU_SCALE A(1.0507009873554805)
#define SELU_ALPHA A(1.6732632423543772)
__device__ inline A selu(A z) { return SELU_SCALE * (z > 0 ? z : SELU_ALPHA * expm1(z)); }
__device__ inline A selu_slope(A y) { return y > 0 ? SELU_SCALE : y + SELU_SCALE * SELU_ALPHA; }

// exp(-|z|) cannot overflow
__device__ inline A sigmoid(A z) {
    A small = exp(-fabs(z));
    return (z >= 0 ? A(1) : small) / (1 + small);
}
__device__ inline A sigmoid_slope(A y) { return y * (1 - y); }

__device__ inline A hyperbolic(A z) { return ::tanh(z); }
__device__ inline A tanh(A z) { return hyperbolic(z); }
__device__ inline A tanh_slope(A y) { return 1 - y * y; }

__device__ inline A softplus(A z) { return larger(z, A(0)) + log1p(exp(-fabs(z))); }
__device__ inline A softplus_slope(A y) { return -expm1(-y); }

__device__ inline A hard_sigmoid(A z) { return smaller(larger(z * A(1.0 / 6) + A(0.5), A(0)), A(1)); }
__device__ inline A hard_sigmoid_slope(A y) { return y > 0 && y < 1 ? A(1.0 / 6) : A(0); }

__device__ inline A hard_tanh(A z) { return smaller(larger(z, A(-1)), A(1)); }
__device__ inline A hard_tanh_slope(A y) { return A(fabs(y) < 1); }

// Below, the slope is a function of z = x + bias, not of the output.

__device__ inline A softsign(A z) { return z / (1 + fabs(z)); }
__device__ inline A softsign_slope(A z) { return 1 / (1 + fabs(z)) / (1 + fabs(z)); }

__device__ inline A silu(A z) { return z * sigmoid(z); }
__device__ inline A silu_slope(A z) { return sigmoid(z) * (1 + z * sigmoid(-z)); }

__device__ inline A hard_silu(A z) { return z * hard_sigmoid(z); }
__device__ inline A hard_silu_slope(A z) { return z >= 3 ? A(1) : z <= -3 ? A(0) : z * A(1.0 / 3) + A(0.5); }

__device__ inline A mish(A z) { return z * hyperbolic(softplus(z)); }
__device__ inline A mish_slope(A z) {
    A t = hyperbolic(softplus(z));
    return t + z * sigmoid(z) * (1 - t * t);
}

__device__ inline A gelu(A z) { return z * A(0.5) * erfc(-z * A(0.7071067811865476)); }
__device__ inline A gelu_slope(A z) {
    return A(0.5) * erfc(-z * A(0.7071067811865476)) + z * A(0.3989422804014327) * exp(A(-0.5) * z * z);
}

#define GELU_FACTOR A(0.7978845608028654)
#define GELU_CUBE A(0.044715)
// the gate sigmoid(2 u) is 0 or 1 beyond 30, where the cube could overflow
__device__ inline A gelu_bounded(A z) { return smaller(larger(z, A(-30)), A(30)); }
__device__ inline A gelu_gate(A z) { return sigmoid(2 * GELU_FACTOR * z * (1 + GELU_CUBE * z * z)); }
__device__ inline A gelu_tanh(A z) { return z * gelu_gate(gelu_bounded(z)); }
__device__ inline A gelu_tanh_slope(A z) {
    A bounded = gelu_bounded(z), gate = gelu_gate(bounded);
    return gate * (1 + z * (1 - gate) * 2 * GELU_FACTOR * (1 + 3 * GELU_CUBE * bounded * bounded));
}

}  // namespace activations
