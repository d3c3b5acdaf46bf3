// GRU: a whole sequence in one launch each way, or a step in a launch where the weights are too many to stay in the
// multiprocessors. What the inputs and the weights contribute beside that are plain matrix products, before and after.
//
// All arrays are (batch, time, ...), states (batch, time + 1, units) beginning with the initial one; mask may be null.
// `gates` comes as x @ kernel + bias and leaves as z, r, g; inner is h[t-1] @ recurrent_g + bias if reset_after, else
// r * h[t-1]. grad_h is the final state's gradient and becomes the initial one's.
//
// Without reset_after a step has a second exchange, and a product of r * h[t-1], or its gradient, alone.
#ifndef SHAPE
#define SHAPE 256, 4, 1, 64
#endif
#include "gru.cuh"
#include "recurrent.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, 1) gru_forward(
    const T* recurrent, const T* state_bias, T* gates, T* inner, const bool* mask, T* states, bool reset_after,
    A* outside, unsigned* arrivals, int batch, int time, int units, int width, int rows) {
    extern __shared__ A shared[];
    using Sums = Product<3, 1>;
    constexpr int MINE = Sums::MINE;
    Block b(shared, outside, arrivals, batch, units, width, rows, units, Sums::LANES);
    Sums product(b, recurrent, units, 1, units, 3LL * units);
    auto load = [&](int t, int pass, A (&drive)[MINE], bool& present) {
        Sums::load(b, gates, mask, t, time, pass, drive, present);
    };
    A bias[MINE] = {};
    for (int m = 0; m < MINE; m++) {
        if (state_bias && b.has_unit() && Sums::column(m) < 3) bias[m] = A(state_bias[Sums::column(m) * units + b.unit]);
    }
    FOR_PASSES(pass, b) {
        if (!b.speaks(pass)) continue;
        b.keeps(pass, 0) = A(states[(b.first + b.sample(pass)) * (time + 1) * units + b.unit]);
        b.put(pass, b.unit, b.keeps(pass, 0));
    }
    A coming[MINE] = {};
    bool comes = false;
    load(0, 0, coming, comes);
    for (int t = 0; t < time; t++) {
        b.next_turn();
        FOR_PASSES(pass, b) {
            A drive[MINE], sums[MINE];
            for (int m = 0; m < MINE; m++) drive[m] = coming[m];
            bool present = comes, last = (pass + 1) * ROWS >= rows;
            if (reset_after || !last) load(last ? t + 1 : t, last ? 0 : pass + 1, coming, comes);
            product(b.take(pass), b.stride, sums);
            for (int m = 0; m < MINE; m++) {
                sums[m] += bias[m];
                if (Sums::column(m) < 2) sums[m] = sigmoid(sums[m] + drive[m]);
            }
            A z = Sums::gathered(sums, 0), r = Sums::gathered(sums, 1);
            A within = Sums::gathered(sums, 2), g = Sums::gathered(drive, 2);
            if (!b.speaks(pass)) continue;
            A& h = b.keeps(pass, 0);
            long long sample = b.first + b.sample(pass), step = sample * time + t;
            T* gate = gates + step * 3 * units + b.unit;
            if (present) {
                gate[0] = T(z);
                gate[units] = T(r);
            }
            if (!reset_after) within = r * h;
            inner[step * units + b.unit] = T(present ? within : A(0));
            if (reset_after) {
                g = hyperbolic(g + r * within);
                if (present) {
                    h = z * (h - g) + g;
                    gate[2 * units] = T(g);
                }
                b.put(pass, b.unit, h);
                states[(step + sample + 1) * units + b.unit] = T(h);
            } else {
                b.keeps(pass, 1) = z;
                b.put(pass, b.unit, within);
            }
        }
        if (reset_after) continue;
        b.next_turn();
        FOR_PASSES(pass, b) {
            A sums[MINE];
            bool present = false;
            load(t, pass, coming, present);
            product(b.take(pass), b.stride, sums);
            A g = Sums::gathered(sums, 2) + Sums::gathered(coming, 2);
            if (!b.speaks(pass)) continue;
            A& h = b.keeps(pass, 0);
            long long sample = b.first + b.sample(pass), step = sample * time + t;
            if (present) {
                g = hyperbolic(g);
                h = b.keeps(pass, 1) * (h - g) + g;
                gates[(step * 3 + 2) * units + b.unit] = T(g);
            }
            b.put(pass, b.unit, h);
            states[(step + sample + 1) * units + b.unit] = T(h);
        }
        load(t + 1, 0, coming, comes);
    }
}

// grad_inner is the gradient by what the state adds to g: h[t-1] @ recurrent_g + bias, times r if reset_after.
extern "C" __global__ void __launch_bounds__(THREADS, 1) gru_gradient(
    const T* recurrent, const T* gates, const T* inner, const T* states, const bool* mask, const T* grad, T* grad_h,
    T* grad_z, T* grad_inner, bool reset_after, A* outside, unsigned* arrivals, int batch, int time, int units, int width,
    int rows) {
    extern __shared__ A shared[];
    using Sums = Product<1, GROUP>;
    Block b(shared, outside, arrivals, batch, units, width, rows, 3 * units, Sums::LANES);
    Sums product(b, recurrent, 3 * units, 3LL * units, 0, 1);
    auto load = [&](int t, int pass, Step& step) {
        if (t < 0 || !b.speaks(pass)) return;
        step.load(gates, inner, states, mask, grad, b.first + b.sample(pass), t, time, units, b.unit);
    };
    FOR_PASSES(pass, b) {
        if (b.speaks(pass)) b.keeps(pass, 0) = A(grad_h[(b.first + b.sample(pass)) * units + b.unit]);
    }
    Step coming = {};
    load(time - 1, 0, coming);
    for (int t = time - 1; t >= -1; t--) {
        b.next_turn();
        FOR_PASSES(pass, b) {
            Step step = coming;
            A d[4], sum[1];
            bool last = (pass + 1) * ROWS >= rows;
            if (reset_after || !last) load(last ? t - 1 : t, last ? 0 : pass + 1, coming);
            product(b.take(pass), b.stride, sum);  // of zeros at first
            if (!b.speaks(pass)) continue;
            long long sample = b.first + b.sample(pass);
            A& by_h = b.keeps(pass, 0);
            by_h += sum[0];
            if (t < 0) {
                grad_h[sample * units + b.unit] = T(by_h);
                continue;
            }
            step.back(reset_after, by_h, d);
            T* out = grad_z + (sample * time + t) * 3 * units + b.unit;
            for (int p = 0; p < 3; p++) {
                if (reset_after || p != 1) out[p * units] = T(d[p]);
            }
            grad_inner[(sample * time + t) * units + b.unit] = T(d[3]);
            b.put(pass, b.unit, reset_after ? d[0] : A(0));
            b.put(pass, units + b.unit, d[1]);
            b.put(pass, 2 * units + b.unit, d[3]);
            if (!reset_after) b.keeps(pass, 1) = d[0];
        }
        if (reset_after || t < 0) continue;
        b.next_turn();
        FOR_PASSES(pass, b) {  // the gradient by r needs that by r * h[t-1] first
            A sum[1];
            load(t, pass, coming);
            product(b.take(pass), b.stride, sum);
            if (!b.speaks(pass)) continue;
            long long step = (b.first + b.sample(pass)) * time + t;
            A by_r = coming.back_through_reset(sum[0], b.keeps(pass, 0));
            grad_z[(step * 3 + 1) * units + b.unit] = T(by_r);
            b.put(pass, b.unit, b.keeps(pass, 1));
            b.put(pass, units + b.unit, by_r);
            b.put(pass, 2 * units + b.unit, 0);
        }
        load(t - 1, 0, coming);
    }
}

// Step t of all samples; product = h[t-1] @ recurrent, of the state (batch, units), which becomes h[t]. Without
// reset_after it has the columns of z and r, `inner` is what it leaves, and `second` the product of that by the others:
// it is null in a first launch and there in a second.
extern "C" __global__ void gru_step(
    const T* product, const T* second, const T* state_bias, T* gates, T* inner, const bool* mask, T* states, T* state,
    T* reset, bool reset_after, int t, int batch, int time, int units) {
    FOR_EACH(i, (long long)batch * units) {
        long long sample = i / units, step = sample * time + t, u = i % units;
        T* gate = gates + step * 3 * units + u;
        A h = A(state[i]), part = 0;
        bool present = !mask || mask[step];
        if (present && !second) {
            A sums[3] = {};
            for (int p = 0; p < (reset_after ? 3 : 2); p++) {
                sums[p] = A(product[(sample * (reset_after ? 3 : 2) + p) * units + u]);
                if (state_bias) sums[p] += A(state_bias[p * units + u]);
            }
            gate[0] = T(sigmoid(A(gate[0]) + sums[0]));
            A r = sigmoid(A(gate[units]) + sums[1]);
            gate[units] = T(r);
            part = reset_after ? sums[2] : r * h;
        }
        if (!second) inner[step * units + u] = reset[i] = T(part);
        if (!second && !reset_after) continue;
        if (present) {
            part = second ? A(second[i]) : A(gate[units]) * part;
            A g = hyperbolic(A(gate[2 * units]) + part);
            gate[2 * units] = T(g);
            h = A(gate[0]) * (h - g) + g;
        }
        states[(step + sample + 1) * units + u] = state[i] = T(h);
    }
}

// Step t of all samples: by_z (batch, 3 units), by z, r and inner, goes into products with the weights. Without
// reset_after that of the last part comes as `second` in a second launch, which is for r.
extern "C" __global__ void gru_step_gradient(
    const T* product, const T* second, const T* gates, const T* inner, const T* states, const bool* mask, const T* grad,
    T* grad_h, T* grad_z, T* grad_inner, T* by_z, T* by_inner, bool reset_after, int t, int batch, int time, int units) {
    FOR_EACH(i, (long long)batch * units) {
        long long sample = i / units, u = i % units, at = (sample * time + t) * units + u;
        A by_h = A(grad_h[i]), d[4];
        if (product) by_h += A(product[i]);
        if (t >= 0) {
            Step step;
            step.load(gates, inner, states, mask, grad, sample, t, time, units, u);
            T* out = grad_z + (sample * time + t) * 3 * units + u;
            int parts = reset_after ? 3 : 2;  // in by_z; the last one is in by_inner, too
            if (second) {
                T by_r = T(step.back_through_reset(A(second[i]), by_h));
                out[units] = by_z[(sample * parts + 1) * units + u] = by_r;
            } else {
                step.back(reset_after, by_h, d);
                for (int p = 0; p < 3; p++) out[p * units] = T(d[p]);
                by_z[sample * parts * units + u] = T(d[0]);
                by_z[(sample * parts + 1) * units + u] = T(d[1]);
                if (reset_after) by_z[(sample * parts + 2) * units + u] = T(d[3]);
                grad_inner[at] = by_inner[i] = T(d[3]);
            }
        }
        grad_h[i] = T(by_h);
    }
}
