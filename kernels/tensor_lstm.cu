// LSTM on tensor cores: a whole sequence in one launch each way, as in lstm.cu, whose arrays these are.
#include "lstm.cuh"
#include "tensor_recurrent.cuh"

// What a step takes beside the products.
struct Driven {
    A z[4], h, c;
    bool present;
};
struct Gradients {
    Step step;
    A by_h, by_c;
};

extern "C" __global__ void __launch_bounds__(THREADS, 1) tensor_lstm_forward(
    const T* recurrent, T* gates, const bool* mask, T* states, T* cells, T* vectors, float* partial, A* carried,
    unsigned* arrivals, int batch, int time, int units, int rows, int slices, int each) {
    if constexpr (TENSOR_CORES) {
        extern __shared__ A shared[];
        Spread b(
            shared, recurrent, units, 4 * units, 4LL * units, 1, vectors, partial, carried, arrivals, batch, units, rows,
            slices, each);
        b.each_own([&](int sample, int u) {
            long long at = (long long)sample * (time + 1) * units + u;
            b.put(sample, u, b.carry(0, sample, u) = A(states[at]));
            b.carry(1, sample, u) = A(cells[at]);
        });
        b.barrier();
        for (int t = 0; t < time; t++) {
            auto gate_at = [&](int sample, int p, int u) -> T& {
                return gates[(((long long)sample * time + t) * 4 + p) * units + u];
            };
            b.each_own([&](int sample, int u) {
                for (int p = 0; p < 4; p++) fetch_ahead(&gate_at(sample, p, u));
            });
            b.multiply();
            auto load = [&](int sample, int u) {
                Driven d;
                for (int p = 0; p < 4; p++) d.z[p] = A(gate_at(sample, p, u));
                d.h = b.carry(0, sample, u);
                d.c = b.carry(1, sample, u);
                d.present = !mask || mask[(long long)sample * time + t];
                return d;
            };
            b.finish<4>(0, load, [&](int sample, int u, const A* sums, Driven& d) {
                if (d.present) {
                    for (int p = 0; p < 4; p++) gate_at(sample, p, u) = T(d.z[p] = activated(d.z[p] + sums[p], p));
                    step_forward(d.z, d.h, d.c);
                    b.carry(0, sample, u) = d.h;
                    b.carry(1, sample, u) = d.c;
                }
                b.put(sample, u, d.h);
                long long at = ((long long)sample * (time + 1) + t + 1) * units + u;
                states[at] = T(d.h);
                cells[at] = T(d.c);
            });
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) tensor_lstm_gradient(
    const T* recurrent, const T* gates, const T* cells, const bool* mask, const T* grad, T* grad_h, T* grad_c, T* grad_z,
    T* vectors, float* partial, A* carried, unsigned* arrivals, int batch, int time, int units, int rows, int slices,
    int each) {
    if constexpr (TENSOR_CORES) {
        extern __shared__ A shared[];
        Spread b(
            shared, recurrent, 4 * units, units, 1, 4LL * units, vectors, partial, carried, arrivals, batch, units, rows,
            slices, each);
        b.each_own([&](int sample, int u) {
            b.carry(0, sample, u) = A(grad_h[(long long)sample * units + u]);
            b.carry(1, sample, u) = A(grad_c[(long long)sample * units + u]);
        });
        for (int t = time - 1; t >= -1; t--) {
            b.each_own([&](int sample, int u) {
                if (t < 0) return;
                long long step = (long long)sample * time + t;
                for (int p = 0; p < 4; p++) fetch_ahead(&gates[(step * 4 + p) * units + u]);
                fetch_ahead(&cells[(step + sample) * units + u]);
                if (grad) fetch_ahead(&grad[step * units + u]);
            });
            b.multiply();  // zeros at first
            auto load = [&](int sample, int u) {
                Gradients g = {};
                if (t >= 0) g.step.load(gates, cells, mask, grad, sample, t, time, units, u);
                g.by_h = b.carry(0, sample, u);
                g.by_c = b.carry(1, sample, u);
                return g;
            };
            b.finish<1>(0, load, [&](int sample, int u, const A* sums, Gradients& g) {
                g.by_h += sums[0];
                if (t < 0) {
                    grad_h[(long long)sample * units + u] = T(g.by_h);
                    grad_c[(long long)sample * units + u] = T(g.by_c);
                    return;
                }
                A d[4];
                g.step.back(g.by_h, g.by_c, d);
                b.carry(0, sample, u) = g.by_h;
                b.carry(1, sample, u) = g.by_c;
                for (int p = 0; p < 4; p++) {
                    b.put(sample, p * units + u, d[p]);
                    grad_z[(((long long)sample * time + t) * 4 + p) * units + u] = T(d[p]);
                }
            });
        }
    }
}
