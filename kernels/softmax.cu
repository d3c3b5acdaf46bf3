// Softmax and cross-entropies: a team of threads a row. The largest value and the sum of exponentials come from one pass
// over the row (the sum is scaled down when a larger value turns up), results from a second, which reads the cache.
#include "rows.cuh"

#define EPSILON A(1e-7)
#define NEARLY_ONE A(1 - 1e-7)

// sum(exp(x - largest)) over what a thread or a team has seen. NaN and +infinity make the sum NaN.
struct Exponentials {
    A largest = -infinity(), sum = A(0);

    __device__ void add(A v) {
        if (v > largest) {
            sum = sum * exp(largest - v) + (1 + (v - v));  // v - v is NaN for infinity
            largest = v;
        } else if (v != -infinity()) {
            sum += exp(v - largest);
        }
    }
    __device__ void reduce() {
        A own = largest;
        largest = row_reduce<Max>(own);
        sum = row_reduce<Sum>(own == largest ? sum : sum * exp(own - largest));
    }
};

__device__ inline Exponentials exponentials(const T* x, long long columns, long long stride) {
    Exponentials found;
    FOR_EACH_COLUMN(j, columns) found.add(A(x[j * stride]));
    found.reduce();
    return found;
}

__device__ inline A clipped(A p) { return smaller(larger(p, EPSILON), NEARLY_ONE); }

// x is (rows / stride, columns, stride): a row's columns are `stride` apart.
__device__ inline long long beginning(long long row, long long columns, long long stride) {
    return row / stride * stride * columns + row % stride;
}

extern "C" __global__ void softmax(const T* x, T* y, long long rows, long long columns, long long stride) {
    FOR_EACH_ROW(row, rows) {
        long long start = beginning(row, columns, stride), width = row < rows ? columns : 0;
        Exponentials e = exponentials(x + start, width, stride);
        A inverse = 1 / e.sum;
        FOR_EACH_COLUMN(j, width) {
            long long i = start + j * stride;
            y[i] = T(exp(A(x[i]) - e.largest) * inverse);
        }
    }
}

extern "C" __global__ void softmax_backward(
    const T* grad, const T* y, T* grad_x, long long rows, long long columns, long long stride) {
    FOR_EACH_ROW(row, rows) {
        long long start = beginning(row, columns, stride), width = row < rows ? columns : 0;
        A sum = 0;
        FOR_EACH_COLUMN(j, width) sum += A(grad[start + j * stride]) * A(y[start + j * stride]);
        sum = row_reduce<Sum>(sum);
        FOR_EACH_COLUMN(j, width) {
            long long i = start + j * stride;
            grad_x[i] = T(A(y[i]) * (A(grad[i]) - sum));
        }
    }
}

extern "C" __global__ void log_softmax(const T* x, T* y, long long rows, long long columns, long long stride) {
    FOR_EACH_ROW(row, rows) {
        long long start = beginning(row, columns, stride), width = row < rows ? columns : 0;
        Exponentials e = exponentials(x + start, width, stride);
        A logarithm = log(e.sum);
        FOR_EACH_COLUMN(j, width) {
            long long i = start + j * stride;
            y[i] = T(A(x[i]) - e.largest - logarithm);
        }
    }
}

extern "C" __global__ void log_softmax_backward(
    const T* grad, const T* y, T* grad_x, long long rows, long long columns, long long stride) {
    FOR_EACH_ROW(row, rows) {
        long long start = beginning(row, columns, stride), width = row < rows ? columns : 0;
        A sum = 0;
        FOR_EACH_COLUMN(j, width) sum += A(grad[start + j * stride]);
        sum = row_reduce<Sum>(sum);
        FOR_EACH_COLUMN(j, width) {
            long long i = start + j * stride;
            grad_x[i] = T(A(grad[i]) - exp(A(y[i])) * sum);
        }
    }
}

// Labels are integers, `labels`, or weights of the classes, `weights`; the other is null.
// An integer that is no class makes its row NaN.
extern "C" __global__ void softmax_cross_entropy(
    const T* logits, const long long* labels, const T* weights, T* loss, T* probabilities, long long rows,
    long long classes) {
    FOR_EACH_ROW(row, rows) {
        long long start = row * classes, width = row < rows ? classes : 0;
        Exponentials e = exponentials(logits + start, width, 1);
        long long label = labels && width ? labels[row] : 0;
        if (label < 0 || label >= classes) e.sum = not_a_number();
        A logarithm = log(e.sum), inverse = 1 / e.sum, sum = 0;
        FOR_EACH_COLUMN(j, width) {
            A shifted = A(logits[start + j]) - e.largest;
            probabilities[start + j] = T(exp(shifted) * inverse);
            if (weights) sum += A(weights[start + j]) * (logarithm - shifted);
            else if (j == label) sum = logarithm - shifted;
        }
        sum = row_reduce<Sum>(sum);
        if (width && threadIdx.x == 0) loss[row] = T(e.sum == e.sum ? sum : not_a_number());
    }
}

extern "C" __global__ void softmax_cross_entropy_backward(
    const T* grad, const T* probabilities, const long long* labels, const T* weights, T* by_logits, long long rows,
    long long classes) {
    FOR_EACH_ROW(row, rows) {
        long long start = row * classes, width = row < rows ? classes : 0;
        A total = 1;
        if (weights) {
            A sum = 0;
            FOR_EACH_COLUMN(j, width) sum += A(weights[start + j]);
            total = row_reduce<Sum>(sum);
        }
        A scale = width ? A(grad[row]) : A(0);
        long long label = labels && width ? labels[row] : 0;
        FOR_EACH_COLUMN(j, width) {
            A wanted = weights ? A(weights[start + j]) : A(j == label);
            by_logits[start + j] = T(scale * (A(probabilities[start + j]) * total - wanted));
        }
    }
}

extern "C" __global__ void categorical_cross_entropy(
    const T* probabilities, const long long* labels, const T* weights, T* loss, A* totals, long long rows,
    long long classes) {
    FOR_EACH_ROW(row, rows) {
        long long start = row * classes, width = row < rows ? classes : 0;
        A total = 0, sum = 0;
        FOR_EACH_COLUMN(j, width) total += A(probabilities[start + j]);
        total = row_reduce<Sum>(total);
        long long label = labels && width ? labels[row] : 0;
        if (label < 0 || label >= classes) total = not_a_number();
        FOR_EACH_COLUMN(j, width) {
            A quotient = A(probabilities[start + j]) / total;
            if (weights) sum -= A(weights[start + j]) * log(clipped(quotient));
            else if (j == label) sum = -log(clipped(quotient));
        }
        sum = row_reduce<Sum>(sum);
        if (width && threadIdx.x == 0) {
            totals[row] = total;
            loss[row] = T(total == total ? sum : not_a_number());
        }
    }
}

extern "C" __global__ void categorical_cross_entropy_backward(
    const T* grad, const A* totals, const T* probabilities, const long long* labels, const T* weights,
    T* by_probabilities, long long rows, long long classes) {
    FOR_EACH_ROW(row, rows) {
        long long start = row * classes, width = row < rows ? classes : 0;
        long long label = labels && width ? labels[row] : 0;
        A total = width ? totals[row] : A(1), scale = width ? A(grad[row]) / total : A(0), sum = 0;
        // the slope of the loss by a quotient; what was clipped has none
        auto slope = [&](long long j) {
            A quotient = A(probabilities[start + j]) / total, p = clipped(quotient);
            A weight = weights ? A(weights[start + j]) : A(j == label);
            return p == quotient || quotient != quotient ? weight / -p : A(0);
        };
        FOR_EACH_COLUMN(j, width) {
            if (weights || j == label) sum += slope(j) * (A(probabilities[start + j]) / total);
        }
        sum = row_reduce<Sum>(sum);
        FOR_EACH_COLUMN(j, width) {
            by_probabilities[start + j] = T(scale * ((weights || j == label ? slope(j) : A(0)) - sum));
        }
    }
}

// exp(-|z|) cannot overflow
extern "C" __global__ void sigmoid_cross_entropy(
    const T* logits, const T* targets, T* loss, long long rows, long long units) {
    FOR_EACH_ROW(row, rows) {
        long long start = row * units, width = row < rows ? units : 0;
        A sum = 0;
        FOR_EACH_COLUMN(j, width) {
            A z = A(logits[start + j]);
            sum += larger(z, A(0)) + log1p(exp(-fabs(z))) - z * A(targets[start + j]);
        }
        sum = row_reduce<Sum>(sum);
        if (width && threadIdx.x == 0) loss[row] = T(sum / units);
    }
}

extern "C" __global__ void sigmoid_cross_entropy_backward(
    const T* grad, const T* logits, const T* targets, T* by_logits, long long rows, long long units) {
    FOR_EACH_ROW(row, rows) {
        if (row >= rows) continue;
        long long start = row * units;
        A share = A(grad[row]) / units;
        FOR_EACH_COLUMN(j, units) {
            A z = A(logits[start + j]), small = exp(-fabs(z));
            by_logits[start + j] = T(((z >= 0 ? A(1) : small) / (1 + small) - A(targets[start + j])) * share);
        }
    }
}

extern "C" __global__ void binary_cross_entropy(
    const T* probabilities, const T* targets, T* loss, long long rows, long long units) {
    FOR_EACH_ROW(row, rows) {
        long long start = row * units, width = row < rows ? units : 0;
        A sum = 0;
        FOR_EACH_COLUMN(j, width) {
            A p = clipped(A(probabilities[start + j])), t = A(targets[start + j]);
            sum -= t * log(p) + (1 - t) * log1p(-p);
        }
        sum = row_reduce<Sum>(sum);
        if (width && threadIdx.x == 0) loss[row] = T(sum / units);
    }
}

extern "C" __global__ void binary_cross_entropy_backward(
    const T* grad, const T* probabilities, const T* targets, T* by_probabilities, long long rows, long long units) {
    FOR_EACH_ROW(row, rows) {
        if (row >= rows) continue;
        long long start = row * units;
        A share = A(grad[row]) / units;
        FOR_EACH_COLUMN(j, units) {
            A given = A(probabilities[start + j]), p = clipped(given);
            A slope = (p - A(targets[start + j])) / (p * (1 - p)) * share;
            by_probabilities[start + j] = T(p == given || given != given ? slope : A(0));
        }
    }
}
