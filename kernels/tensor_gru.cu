// GRU on tensor cores: a whole sequence in one launch each way, as in gru.cu, whose arrays these are.
#include "gru.cuh"
#include "tensor_recurrent.cuh"

// What a step takes beside the products.
struct Driven {
    A z, r, g, h;
    bool present;
};
struct Gradients {
    Step step;
    A by_h;
};

extern "C" __global__ void __launch_bounds__(THREADS, 1) tensor_gru_forward(
    const T* recurrent, const T* state_bias, T* gates, T* inner, const bool* mask, T* states, bool reset_after,
    T* vectors, float* partial, A* carried, unsigned* arrivals, int batch, int time, int units, int rows, int slices,
    int each) {
    if constexpr (TENSOR_CORES) {
        extern __shared__ A shared[];
        Spread b(
            shared, recurrent, units, 3 * units, 3LL * units, 1, vectors, partial, carried, arrivals, batch, units, rows,
            slices, each);
        b.each_own([&](int sample, int u) {
            b.put(sample, u, b.carry(0, sample, u) = A(states[(long long)sample * (time + 1) * units + u]));
        });
        b.barrier();
        for (int t = 0; t < time; t++) {
            auto step_of = [&](int sample) { return (long long)sample * time + t; };
            auto gate_at = [&](int sample, int p, int u) -> T& { return gates[(step_of(sample) * 3 + p) * units + u]; };
            auto load = [&](int sample, int u) {
                Driven d;
                d.z = A(gate_at(sample, 0, u));
                d.r = A(gate_at(sample, 1, u));
                d.g = A(gate_at(sample, 2, u));
                d.h = b.carry(0, sample, u);
                d.present = !mask || mask[step_of(sample)];
                return d;
            };
            auto end = [&](int sample, int u, const Driven& d, A z, A by_state) {
                A h = d.h;
                if (d.present) {
                    A g = hyperbolic(d.g + by_state);
                    gate_at(sample, 2, u) = T(g);
                    b.carry(0, sample, u) = h = z * (h - g) + g;
                }
                b.put(sample, u, h);
                states[(step_of(sample) + sample + 1) * units + u] = T(h);
            };
            b.each_own([&](int sample, int u) {
                for (int p = 0; p < 3; p++) fetch_ahead(&gate_at(sample, p, u));
            });
            b.multiply();
            b.finish<3>(0, load, [&](int sample, int u, A* sums, const Driven& d) {
                for (int p = 0; p < 3; p++) sums[p] += state_bias ? A(state_bias[p * units + u]) : A(0);
                A z = sigmoid(d.z + sums[0]), r = sigmoid(d.r + sums[1]), within = reset_after ? sums[2] : r * d.h;
                if (d.present) {
                    gate_at(sample, 0, u) = T(z);
                    gate_at(sample, 1, u) = T(r);
                }
                inner[step_of(sample) * units + u] = T(d.present ? within : A(0));
                if (reset_after) return end(sample, u, d, z, r * within);
                b.carry(1, sample, u) = z;
                b.put(sample, u, within);
            });
            if (reset_after) continue;
            b.multiply();
            b.finish<1>(2 * units, load, [&](int sample, int u, const A* sums, const Driven& d) {
                end(sample, u, d, b.carry(1, sample, u), sums[0]);
            });
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) tensor_gru_gradient(
    const T* recurrent, const T* gates, const T* inner, const T* states, const bool* mask, const T* grad, T* grad_h,
    T* grad_z, T* grad_inner, bool reset_after, T* vectors, float* partial, A* carried, unsigned* arrivals, int batch,
    int time, int units, int rows, int slices, int each) {
    if constexpr (TENSOR_CORES) {
        extern __shared__ A shared[];
        Spread b(
            shared, recurrent, 3 * units, units, 1, 3LL * units, vectors, partial, carried, arrivals, batch, units, rows,
            slices, each);
        b.each_own([&](int sample, int u) { b.carry(0, sample, u) = A(grad_h[(long long)sample * units + u]); });
        for (int t = time - 1; t >= -1; t--) {
            b.each_own([&](int sample, int u) {
                if (t < 0) return;
                long long step = (long long)sample * time + t;
                for (int p = 0; p < 3; p++) fetch_ahead(&gates[(step * 3 + p) * units + u]);
                fetch_ahead(&inner[step * units + u]);
                fetch_ahead(&states[(step + sample) * units + u]);
                if (grad) fetch_ahead(&grad[step * units + u]);
            });
            b.multiply();  // zeros at first
            auto load = [&](int sample, int u) {
                Gradients g = {};
                if (t >= 0) g.step.load(gates, inner, states, mask, grad, sample, t, time, units, u);
                g.by_h = b.carry(0, sample, u);
                return g;
            };
            b.finish<1>(0, load, [&](int sample, int u, const A* sums, Gradients& g) {
                long long step = (long long)sample * time + t;
                g.by_h += sums[0];
                if (t < 0) {
                    grad_h[(long long)sample * units + u] = T(g.by_h);
                    return;
                }
                A d[4];
                g.step.back(reset_after, g.by_h, d);
                b.carry(0, sample, u) = g.by_h;
                for (int p = 0; p < 3; p++) {
                    if (reset_after || p != 1) grad_z[(step * 3 + p) * units + u] = T(d[p]);
                }
                grad_inner[step * units + u] = T(d[3]);
                b.put(sample, u, reset_after ? d[0] : A(0));
                b.put(sample, units + u, d[1]);
                b.put(sample, 2 * units + u, d[3]);
                if (!reset_after) b.carry(1, sample, u) = d[0];
            });
            if (reset_after || t < 0) continue;
            b.multiply();
            b.finish<1>(0, load, [&](int sample, int u, const A* sums, Gradients& g) {
                A by_r = g.step.back_through_reset(sums[0], g.by_h);  // needs the gradient by r * h[t-1] first
                b.carry(0, sample, u) = g.by_h;
                grad_z[(((long long)sample * time + t) * 3 + 1) * units + u] = T(by_r);
                b.put(sample, u, b.carry(1, sample, u));
                b.put(sample, units + u, by_r);
                b.put(sample, 2 * units + u, 0);
            });
        }
    }
}
