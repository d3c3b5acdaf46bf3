// A simple recurrent network on tensor cores: a whole sequence in one launch each way, as in simple_rnn.cu, whose arrays
// these are.
#include "activations.cuh"
#include "tensor_recurrent.cuh"

using activations::hyperbolic;

// What a step takes beside the product: what the inputs or the loss give, and the state or the gradient so far.
struct Given {
    A arrived, state, by_h;
    bool present;
};

extern "C" __global__ void __launch_bounds__(THREADS, 1) tensor_simple_rnn_forward(
    const T* recurrent, const T* drive, const bool* mask, T* states, T* vectors, float* partial, A* carried,
    unsigned* arrivals, int batch, int time, int units, int rows, int slices, int each) {
    if constexpr (TENSOR_CORES) {
        extern __shared__ A shared[];
        Spread b(
            shared, recurrent, units, units, units, 1, vectors, partial, carried, arrivals, batch, units, rows, slices, each);
        b.each_own([&](int sample, int u) {
            b.put(sample, u, b.carry(0, sample, u) = A(states[(long long)sample * (time + 1) * units + u]));
        });
        b.barrier();
        for (int t = 0; t < time; t++) {
            auto step_of = [&](int sample) { return (long long)sample * time + t; };
            b.each_own([&](int sample, int u) { fetch_ahead(&drive[step_of(sample) * units + u]); });
            b.multiply();
            auto load = [&](int sample, int u) {
                bool present = !mask || mask[step_of(sample)];
                return Given{A(drive[step_of(sample) * units + u]), b.carry(0, sample, u), 0, present};
            };
            b.finish<1>(0, load, [&](int sample, int u, const A* sums, const Given& g) {
                A h = g.present ? hyperbolic(g.arrived + sums[0]) : g.state;
                b.put(sample, u, b.carry(0, sample, u) = h);
                states[(step_of(sample) + sample + 1) * units + u] = T(h);
            });
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) tensor_simple_rnn_gradient(
    const T* recurrent, const T* states, const bool* mask, const T* grad, T* grad_h, T* grad_z, T* vectors,
    float* partial, A* carried, unsigned* arrivals, int batch, int time, int units, int rows, int slices, int each) {
    if constexpr (TENSOR_CORES) {
        extern __shared__ A shared[];
        Spread b(
            shared, recurrent, units, units, 1, units, vectors, partial, carried, arrivals, batch, units, rows, slices, each);
        b.each_own([&](int sample, int u) { b.carry(0, sample, u) = A(grad_h[(long long)sample * units + u]); });
        for (int t = time - 1; t >= -1; t--) {
            auto step_of = [&](int sample) { return (long long)sample * time + t; };
            b.each_own([&](int sample, int u) {
                if (t < 0) return;
                fetch_ahead(&states[(step_of(sample) + sample + 1) * units + u]);
                if (grad) fetch_ahead(&grad[step_of(sample) * units + u]);
            });
            b.multiply();  // zeros at first
            auto load = [&](int sample, int u) {
                Given g = {0, 0, b.carry(0, sample, u), false};
                if (t < 0) return g;
                if (grad) g.arrived = A(grad[step_of(sample) * units + u]);
                g.state = A(states[(step_of(sample) + sample + 1) * units + u]);
                g.present = !mask || mask[step_of(sample)];
                return g;
            };
            b.finish<1>(0, load, [&](int sample, int u, const A* sums, const Given& g) {
                A by_h = g.by_h + sums[0];
                if (t < 0) {
                    grad_h[(long long)sample * units + u] = T(by_h);
                    return;
                }
                by_h += g.arrived;
                A by_z = g.present ? by_h * (1 - g.state * g.state) : A(0);
                b.carry(0, sample, u) = g.present ? A(0) : by_h;
                b.put(sample, u, by_z);
                grad_z[step_of(sample) * units + u] = T(by_z);
            });
        }
    }
}
