// A simple recurrent network: h[t] = tanh(drive[t] + h[t-1] @ recurrent), a whole sequence in one launch each way, or a
// step in a launch where the weights are too many to stay in the multiprocessors. What the inputs and the weights
// contribute beside that are plain matrix products, before and after.
//
// All arrays are (batch, time, ...), states (batch, time + 1, units) beginning with the initial one; mask may be null.
// grad_h is the final state's gradient and becomes the initial one's.
#ifndef SHAPE
#define SHAPE 256, 4, 1, 64
#endif
#include "activations.cuh"
#include "recurrent.cuh"

using activations::hyperbolic;

extern "C" __global__ void __launch_bounds__(THREADS, 1) simple_rnn_forward(
    const T* recurrent, const T* drive, const bool* mask, T* states, A* outside, unsigned* arrivals, int batch, int time,
    int units, int width, int rows) {
    extern __shared__ A shared[];
    using Sums = Product<1, GROUP>;
    Block b(shared, outside, arrivals, batch, units, width, rows, units, Sums::LANES);
    Sums product(b, recurrent, units, 1, 0, units);
    auto load = [&](int t, int pass, A& from_input, bool& present) {
        if (t >= time || !b.speaks(pass)) return;
        long long step = (b.first + b.sample(pass)) * time + t;
        present = !mask || mask[step];
        from_input = A(drive[step * units + b.unit]);
    };
    FOR_PASSES(pass, b) {
        if (!b.speaks(pass)) continue;
        A h = A(states[(b.first + b.sample(pass)) * (time + 1) * units + b.unit]);
        b.put(pass, b.unit, b.keeps(pass, 0) = h);
    }
    A coming = 0;
    bool comes = false;
    load(0, 0, coming, comes);
    for (int t = 0; t < time; t++) {
        b.next_turn();
        FOR_PASSES(pass, b) {
            A from_input = coming, sum[1];
            bool present = comes, last = (pass + 1) * ROWS >= rows;
            load(last ? t + 1 : t, last ? 0 : pass + 1, coming, comes);  // long before it is needed
            product(b.take(pass), b.stride, sum);
            if (!b.speaks(pass)) continue;
            A& h = b.keeps(pass, 0);
            if (present) h = hyperbolic(from_input + sum[0]);
            b.put(pass, b.unit, h);
            states[((b.first + b.sample(pass)) * (time + 1) + t + 1) * units + b.unit] = T(h);
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) simple_rnn_gradient(
    const T* recurrent, const T* states, const bool* mask, const T* grad, T* grad_h, T* grad_z, A* outside,
    unsigned* arrivals, int batch, int time, int units, int width, int rows) {
    extern __shared__ A shared[];
    using Sums = Product<1, GROUP>;
    Block b(shared, outside, arrivals, batch, units, width, rows, units, Sums::LANES);
    Sums product(b, recurrent, units, units, 0, 1);
    auto load = [&](int t, int pass, A& arrived, A& h, bool& present) {
        if (t < 0 || !b.speaks(pass)) return;
        long long sample = b.first + b.sample(pass), step = sample * time + t;
        present = !mask || mask[step];
        arrived = grad ? A(grad[step * units + b.unit]) : A(0);
        h = A(states[(step + sample + 1) * units + b.unit]);
    };
    FOR_PASSES(pass, b) {
        if (b.speaks(pass)) b.keeps(pass, 0) = A(grad_h[(b.first + b.sample(pass)) * units + b.unit]);
    }
    A next_arrived = 0, next_h = 0;
    bool comes = false;
    load(time - 1, 0, next_arrived, next_h, comes);
    for (int t = time - 1; t >= -1; t--) {
        b.next_turn();
        FOR_PASSES(pass, b) {
            A arrived = next_arrived, h = next_h, sum[1];
            bool present = comes, last = (pass + 1) * ROWS >= rows;
            load(last ? t - 1 : t, last ? 0 : pass + 1, next_arrived, next_h, comes);
            product(b.take(pass), b.stride, sum);  // of zeros at first
            if (!b.speaks(pass)) continue;
            long long sample = b.first + b.sample(pass);
            A by_h = b.keeps(pass, 0) + sum[0];
            if (t < 0) {
                grad_h[sample * units + b.unit] = T(by_h);
                continue;
            }
            by_h += arrived;
            A by_z = present ? by_h * (1 - h * h) : A(0);
            b.keeps(pass, 0) = present ? A(0) : by_h;
            b.put(pass, b.unit, by_z);
            grad_z[(sample * time + t) * units + b.unit] = T(by_z);
        }
    }
}

// Step t of all samples; product = h[t-1] @ recurrent, of the state (batch, units), which becomes h[t].
extern "C" __global__ void simple_rnn_step(
    const T* product, const T* drive, const bool* mask, T* states, T* state, int t, int batch, int time, int units) {
    FOR_EACH(i, (long long)batch * units) {
        long long sample = i / units, step = sample * time + t;
        A h = A(state[i]);
        if (!mask || mask[step]) h = hyperbolic(A(drive[step * units + i % units]) + A(product[i]));
        states[(step + sample + 1) * units + i % units] = state[i] = T(h);
    }
}

// Step t of all samples: by_z (batch, units) goes into the product with the weights, which comes in the next step.
extern "C" __global__ void simple_rnn_step_gradient(
    const T* product, const T* states, const bool* mask, const T* grad, T* grad_h, T* grad_z, T* by_z, int t, int batch,
    int time, int units) {
    FOR_EACH(i, (long long)batch * units) {
        long long sample = i / units, step = sample * time + t, u = i % units;
        A by_h = A(grad_h[i]);
        if (product) by_h += A(product[i]);
        A d = 0;
        if (t >= 0) {
            if (grad) by_h += A(grad[step * units + u]);
            A h = A(states[(step + sample + 1) * units + u]);
            bool present = !mask || mask[step];
            d = present ? by_h * (1 - h * h) : A(0);
            if (present) by_h = 0;
            grad_z[step * units + u] = by_z[i] = T(d);
        }
        grad_h[i] = T(by_h);
    }
}
