// Recurrent networks: a whole sequence in one launch each way. One block walks through the time of one sample, with its
// state in shared memory; all samples read the same recurrent weights, which stay in the L2 cache. What the inputs and
// weights contribute beside that are plain matrix products, before and after.
//
// All arrays are (batch, time, ...), states (batch, time + 1, units) beginning with the initial one; mask may be null.
#include "activations.cuh"

using activations::sigmoid;
using activations::hyperbolic;

// sum_k vector[k] * weights[k, column]; neighbouring threads read neighbouring columns.
template <class V>
__device__ A product(const V* vector, const T* weights, int depth, int width, int column) {
    A sum = 0;
#pragma unroll 8
    for (int k = 0; k < depth; k++) sum += A(vector[k]) * A(weights[(long long)k * width + column]);
    return sum;
}

#define FOR_THREADS(i, size) for (int i = threadIdx.x; i < (size); i += blockDim.x)

extern "C" __global__ void __launch_bounds__(1024) simple_rnn_forward(
    const T* recurrent, const T* drive, const bool* mask, T* states, int time, int units) {
    extern __shared__ A shared[];  // the state before and after the step, (2, units)
    long long row = (long long)blockIdx.x * time;
    states += (row + blockIdx.x) * units;
    FOR_THREADS(u, units) shared[u] = A(states[u]);
    __syncthreads();
    for (int t = 0; t < time; t++) {
        const A* before = shared + t % 2 * units;
        A* after = shared + (t + 1) % 2 * units;
        bool present = !mask || mask[row + t];
        FOR_THREADS(u, units) {
            A h = before[u];
            if (present) h = hyperbolic(A(drive[(row + t) * units + u]) + product(before, recurrent, units, units, u));
            after[u] = h;
            states[(t + 1LL) * units + u] = T(h);
        }
        __syncthreads();
    }
}

// `transposed` is the recurrent kernel's transpose; grad_h is the final state's gradient and becomes the initial one's.
extern "C" __global__ void __launch_bounds__(1024) simple_rnn_gradient(
    const T* transposed, const T* states, const bool* mask, const T* grad, T* grad_h, T* grad_z, int time, int units) {
    extern __shared__ A shared[];  // the gradient by z, (units,)
    long long row = (long long)blockIdx.x * time;
    states += (row + blockIdx.x) * units;
    for (int t = time - 1; t >= 0; t--) {
        bool present = !mask || mask[row + t];
        FOR_THREADS(u, units) {
            long long i = (row + t) * units + u;
            A by_h = A(grad_h[(long long)blockIdx.x * units + u]) + (grad ? A(grad[i]) : A(0));
            A h = A(states[(t + 1LL) * units + u]), by_z = present ? by_h * (1 - h * h) : A(0);
            shared[u] = by_z;
            grad_z[i] = T(by_z);
            grad_h[(long long)blockIdx.x * units + u] = T(by_h);
        }
        __syncthreads();
        if (present) {
            FOR_THREADS(u, units) {
                grad_h[(long long)blockIdx.x * units + u] = T(product(shared, transposed, units, units, u));
            }
        }
        __syncthreads();
    }
}

// `gates` comes as x @ kernel + bias and leaves as i, f, g, o.
extern "C" __global__ void __launch_bounds__(1024, 1) lstm_forward(
    const T* recurrent, T* gates, const bool* mask, T* states, T* cells, int time, int units) {
    extern __shared__ A shared[];  // h and c, (2, units)
    A *h = shared, *c = shared + units;
    long long row = (long long)blockIdx.x * time;
    states += (row + blockIdx.x) * units;
    cells += (row + blockIdx.x) * units;
    FOR_THREADS(u, units) {
        h[u] = A(states[u]);
        c[u] = A(cells[u]);
    }
    __syncthreads();
    for (int t = 0; t < time; t++) {
        bool present = !mask || mask[row + t];
        T* gate = gates + (row + t) * 4 * units;
        if (present) {
            FOR_THREADS(column, 4 * units) {
                A z = A(gate[column]) + product(h, recurrent, units, 4 * units, column);
                gate[column] = T(column / units == 2 ? hyperbolic(z) : sigmoid(z));
            }
        }
        __syncthreads();
        FOR_THREADS(u, units) {
            if (present) {
                c[u] = A(gate[units + u]) * c[u] + A(gate[u]) * A(gate[2 * units + u]);
                h[u] = A(gate[3 * units + u]) * hyperbolic(c[u]);
            }
            cells[(t + 1LL) * units + u] = T(c[u]);
            states[(t + 1LL) * units + u] = T(h[u]);
        }
        __syncthreads();
    }
}

// grad_h and grad_c are the final states' gradients and become the initial ones'.
extern "C" __global__ void __launch_bounds__(1024) lstm_gradient(
    const T* transposed, const T* gates, const T* cells, const bool* mask, const T* grad, T* grad_h, T* grad_c,
    T* grad_z, int time, int units) {
    extern __shared__ A shared[];  // the gradients by h, in four parts, and by c; by z
    A *by_h = shared, *by_c = shared + 4 * units, *by_z = shared + 5 * units;
    long long row = (long long)blockIdx.x * time, first = (long long)blockIdx.x * units;
    cells += (row + blockIdx.x) * units;
    FOR_THREADS(u, units) {
        by_h[u] = A(grad_h[first + u]);
        by_h[units + u] = by_h[2 * units + u] = by_h[3 * units + u] = 0;
        by_c[u] = A(grad_c[first + u]);
    }
    for (int t = time - 1; t >= 0; t--) {
        bool present = !mask || mask[row + t];
        const T* gate = gates + (row + t) * 4 * units;
        T* out = grad_z + (row + t) * 4 * units;
        FOR_THREADS(u, units) {
            A arrived = by_h[u] + by_h[units + u] + by_h[2 * units + u] + by_h[3 * units + u];
            if (grad) arrived += A(grad[(row + t) * units + u]);
            by_h[u] = arrived;  // what a sample that sits out keeps
            by_h[units + u] = by_h[2 * units + u] = by_h[3 * units + u] = 0;
            A d[4] = {};
            if (present) {
                A i = A(gate[u]), f = A(gate[units + u]), g = A(gate[2 * units + u]), o = A(gate[3 * units + u]);
                A bounded = hyperbolic(A(cells[(t + 1LL) * units + u]));
                A through = by_c[u] + arrived * o * (1 - bounded * bounded);
                d[0] = through * g * i * (1 - i);
                d[1] = through * A(cells[(long long)t * units + u]) * f * (1 - f);
                d[2] = through * i * (1 - g * g);
                d[3] = arrived * bounded * o * (1 - o);
                by_c[u] = through * f;
            }
            for (int q = 0; q < 4; q++) {
                by_z[q * units + u] = d[q];
                out[q * units + u] = T(d[q]);
            }
        }
        __syncthreads();
        if (present) {  // each gate's part by threads of its own
            FOR_THREADS(i, 4 * units) {
                int part = i / units * units;
                by_h[i] = product(by_z + part, transposed + (long long)part * units, units, units, i % units);
            }
        }
        __syncthreads();
    }
    FOR_THREADS(u, units) {
        grad_h[first + u] = T(by_h[u] + by_h[units + u] + by_h[2 * units + u] + by_h[3 * units + u]);
        grad_c[first + u] = T(by_c[u]);
    }
}

// `gates` comes as x @ kernel + bias and leaves as z, r, g; inner is h[t-1] @ recurrent_g + bias if reset_after, else
// r * h[t-1].
extern "C" __global__ void __launch_bounds__(1024) gru_forward(
    const T* recurrent, const T* state_bias, T* gates, T* inner, const bool* mask, T* states, bool reset_after,
    int time, int units) {
    extern __shared__ A shared[];  // h, and inner, (2, units)
    A *h = shared, *within = shared + units;
    long long row = (long long)blockIdx.x * time;
    states += (row + blockIdx.x) * units;
    FOR_THREADS(u, units) h[u] = A(states[u]);
    __syncthreads();
    for (int t = 0; t < time; t++) {
        bool present = !mask || mask[row + t];
        T* gate = gates + (row + t) * 3 * units;
        if (present) {
            FOR_THREADS(column, (reset_after ? 3 : 2) * units) {
                A z = product(h, recurrent, units, 3 * units, column);
                if (state_bias) z += A(state_bias[column]);
                if (column >= 2 * units) within[column - 2 * units] = z;
                else gate[column] = T(sigmoid(A(gate[column]) + z));
            }
        }
        __syncthreads();
        if (!reset_after) {
            FOR_THREADS(u, units) within[u] = present ? A(gate[units + u]) * h[u] : A(0);
            __syncthreads();
        }
        FOR_THREADS(u, units) {
            if (present) {
                A part = reset_after ? A(gate[units + u]) * within[u]
                                     : product(within, recurrent, units, 3 * units, 2 * units + u);
                A g = hyperbolic(A(gate[2 * units + u]) + part);
                gate[2 * units + u] = T(g);
                h[u] = A(gate[u]) * (h[u] - g) + g;
            }
            inner[(row + t) * units + u] = T(present ? within[u] : A(0));
            states[(t + 1LL) * units + u] = T(h[u]);
        }
        __syncthreads();
    }
}

// grad_inner is the gradient by what the state adds to g: h[t-1] @ recurrent_g + bias, times r if reset_after.
extern "C" __global__ void __launch_bounds__(1024) gru_gradient(
    const T* transposed, const T* gates, const T* inner, const T* states, const bool* mask, const T* grad, T* grad_h,
    T* grad_z, T* grad_inner, bool reset_after, int time, int units) {
    extern __shared__ A shared[];  // the gradient by h: kept, and in three parts; by z, r and inner
    A *kept = shared, *parts = shared + units, *by_z = shared + 4 * units;
    long long row = (long long)blockIdx.x * time, first = (long long)blockIdx.x * units;
    states += (row + blockIdx.x) * units;
    FOR_THREADS(u, units) {
        kept[u] = A(grad_h[first + u]);
        parts[u] = parts[units + u] = parts[2 * units + u] = 0;
    }
    for (int t = time - 1; t >= 0; t--) {
        bool present = !mask || mask[row + t];
        const T* gate = gates + (row + t) * 3 * units;
        T* out = grad_z + (row + t) * 3 * units;
        FOR_THREADS(u, units) {
            A arrived = kept[u] + parts[u] + parts[units + u] + parts[2 * units + u];
            if (grad) arrived += A(grad[(row + t) * units + u]);
            kept[u] = arrived;
            parts[u] = parts[units + u] = parts[2 * units + u] = 0;
            A d[3] = {}, within = 0;
            if (present) {
                A z = A(gate[u]), r = A(gate[units + u]), g = A(gate[2 * units + u]);
                kept[u] = arrived * z;
                d[0] = arrived * (A(states[(long long)t * units + u]) - g) * z * (1 - z);
                d[2] = arrived * (1 - z) * (1 - g * g);
                within = reset_after ? d[2] * r : d[2];
                d[1] = reset_after ? d[2] * A(inner[(row + t) * units + u]) * r * (1 - r) : A(0);
            }
            by_z[u] = d[0];
            by_z[units + u] = d[1];
            by_z[2 * units + u] = within;
            for (int q = 0; q < 3; q++) out[q * units + u] = T(d[q]);
            grad_inner[(row + t) * units + u] = T(within);
        }
        __syncthreads();
        if (present && !reset_after) {  // the gradient by r needs that by r * h[t-1] first
            FOR_THREADS(u, units) {
                A by_inner = product(by_z + 2 * units, transposed + 2LL * units * units, units, units, u);
                A r = A(gate[units + u]);
                by_z[units + u] = by_inner * A(states[(long long)t * units + u]) * r * (1 - r);
                out[units + u] = T(by_z[units + u]);
                kept[u] += by_inner * r;
            }
        }
        __syncthreads();
        if (present) {
            FOR_THREADS(i, (reset_after ? 3 : 2) * units) {
                int part = i / units * units;
                parts[i] = product(by_z + part, transposed + (long long)part * units, units, units, i % units);
            }
        }
        __syncthreads();
    }
    FOR_THREADS(u, units) grad_h[first + u] = T(kept[u] + parts[u] + parts[units + u] + parts[2 * units + u]);
}
