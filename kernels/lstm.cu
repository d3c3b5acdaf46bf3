// LSTM: a whole sequence in one launch each way, or a step in a launch where the weights are too many to stay in the
// multiprocessors. What the inputs and the weights contribute beside that are plain matrix products, before and after.
//
// All arrays are (batch, time, ...), states and cells (batch, time + 1, units) beginning with the initial ones; mask may
// be null. `gates` comes as x @ kernel + bias and leaves as i, f, g, o. grad_h and grad_c are the final states' gradients
// and become the initial ones'.
#ifndef SHAPE
#define SHAPE 256, 4, 1, 64
#endif
#include "lstm.cuh"
#include "recurrent.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, 1) lstm_forward(
    const T* recurrent, T* gates, const bool* mask, T* states, T* cells, A* outside, unsigned* arrivals, int batch,
    int time, int units, int width, int rows) {
    extern __shared__ A shared[];
    using Sums = Product<4, 1>;
    constexpr int MINE = Sums::MINE;
    Block b(shared, outside, arrivals, batch, units, width, rows, units, Sums::LANES);
    Sums product(b, recurrent, units, 1, units, 4LL * units);
    auto load = [&](int t, int pass, A (&drive)[MINE], bool& present) {
        Sums::load(b, gates, mask, t, time, pass, drive, present);
    };
    FOR_PASSES(pass, b) {
        if (!b.speaks(pass)) continue;
        long long at = (b.first + b.sample(pass)) * (time + 1) * units + b.unit;
        b.put(pass, b.unit, b.keeps(pass, 0) = A(states[at]));
        b.keeps(pass, 1) = A(cells[at]);
    }
    A coming[MINE] = {};
    bool comes = false;
    load(0, 0, coming, comes);
    for (int t = 0; t < time; t++) {
        b.next_turn();
        FOR_PASSES(pass, b) {
            A drive[MINE], z[MINE], gate[4];
            for (int m = 0; m < MINE; m++) drive[m] = coming[m];
            bool present = comes, last = (pass + 1) * ROWS >= rows;
            load(last ? t + 1 : t, last ? 0 : pass + 1, coming, comes);  // long before it is needed
            product(b.take(pass), b.stride, z);
            long long sample = b.first + b.sample(pass), step = sample * time + t;
            for (int m = 0; m < MINE; m++) {
                int part = Sums::column(m);
                z[m] = activated(z[m] + drive[m], part);
                if (b.has(pass) && present && Sums::writes()) gates[(step * 4 + part) * units + b.unit] = T(z[m]);
            }
            for (int p = 0; p < 4; p++) gate[p] = Sums::gathered(z, p);
            if (!b.speaks(pass)) continue;
            A &h = b.keeps(pass, 0), &c = b.keeps(pass, 1);
            if (present) step_forward(gate, h, c);
            b.put(pass, b.unit, h);
            states[(step + sample + 1) * units + b.unit] = T(h);
            cells[(step + sample + 1) * units + b.unit] = T(c);
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) lstm_gradient(
    const T* recurrent, const T* gates, const T* cells, const bool* mask, const T* grad, T* grad_h, T* grad_c, T* grad_z,
    A* outside, unsigned* arrivals, int batch, int time, int units, int width, int rows) {
    extern __shared__ A shared[];
    using Sums = Product<1, GROUP>;
    Block b(shared, outside, arrivals, batch, units, width, rows, 4 * units, Sums::LANES);
    Sums product(b, recurrent, 4 * units, 4LL * units, 0, 1);
    auto load = [&](int t, int pass, Step& step) {
        if (t < 0 || !b.speaks(pass)) return;
        step.load(gates, cells, mask, grad, b.first + b.sample(pass), t, time, units, b.unit);
    };
    FOR_PASSES(pass, b) {
        if (!b.speaks(pass)) continue;
        long long at = (b.first + b.sample(pass)) * units + b.unit;
        b.keeps(pass, 0) = A(grad_h[at]);
        b.keeps(pass, 1) = A(grad_c[at]);
    }
    Step coming = {};
    load(time - 1, 0, coming);
    for (int t = time - 1; t >= -1; t--) {
        b.next_turn();
        FOR_PASSES(pass, b) {
            Step step = coming;
            A d[4], sum[1];
            bool last = (pass + 1) * ROWS >= rows;
            load(last ? t - 1 : t, last ? 0 : pass + 1, coming);
            product(b.take(pass), b.stride, sum);  // of zeros at first
            if (!b.speaks(pass)) continue;
            long long sample = b.first + b.sample(pass);
            A &by_h = b.keeps(pass, 0), &by_c = b.keeps(pass, 1);
            by_h += sum[0];
            if (t < 0) {
                grad_h[sample * units + b.unit] = T(by_h);
                grad_c[sample * units + b.unit] = T(by_c);
                continue;
            }
            step.back(by_h, by_c, d);
            for (int p = 0; p < 4; p++) {
                b.put(pass, p * units + b.unit, d[p]);
                grad_z[((sample * time + t) * 4 + p) * units + b.unit] = T(d[p]);
            }
        }
    }
}

// Step t of all samples; product = h[t-1] @ recurrent, of the state (batch, units), which becomes h[t].
extern "C" __global__ void lstm_step(
    const T* product, T* gates, const bool* mask, T* states, T* cells, T* state, int t, int batch, int time, int units) {
    FOR_EACH(i, (long long)batch * units) {
        long long sample = i / units, step = sample * time + t, u = i % units;
        A h = A(state[i]), c = A(cells[(step + sample) * units + u]), gate[4];
        if (!mask || mask[step]) {
            for (int p = 0; p < 4; p++) {
                T& z = gates[(step * 4 + p) * units + u];
                gate[p] = activated(A(z) + A(product[(sample * 4 + p) * units + u]), p);
                z = T(gate[p]);
            }
            step_forward(gate, h, c);
        }
        states[(step + sample + 1) * units + u] = state[i] = T(h);
        cells[(step + sample + 1) * units + u] = T(c);
    }
}

// Step t of all samples: by_z (batch, 4 units) goes into the product with the weights, which comes in the next step.
extern "C" __global__ void lstm_step_gradient(
    const T* product, const T* gates, const T* cells, const bool* mask, const T* grad, T* grad_h, T* grad_c, T* grad_z,
    T* by_z, int t, int batch, int time, int units) {
    FOR_EACH(i, (long long)batch * units) {
        long long sample = i / units, u = i % units;
        A by_h = A(grad_h[i]), by_c = A(grad_c[i]), d[4];
        if (product) by_h += A(product[i]);
        if (t >= 0) {
            Step step;
            step.load(gates, cells, mask, grad, sample, t, time, units, u);
            step.back(by_h, by_c, d);
            for (int p = 0; p < 4; p++) {
                grad_z[((sample * time + t) * 4 + p) * units + u] = by_z[(sample * 4 + p) * units + u] = T(d[p]);
            }
        }
        grad_h[i] = T(by_h);
        grad_c[i] = T(by_c);
    }
}
