"""Mutants that change no result, and why."""

# file, the changed line, the reason
_LISTED = [
    (
        "activations.cuh",
        "__device__ inline A elu(A z) { return z >= 0 ? z : expm1(z); }",
        "both branches meet at 0",
    ),
    (
        "activations.cuh",
        "__device__ inline A selu(A z) { return SELU_SCALE * (z >= 0 ? z : SELU_ALPHA * expm1(z)); }",
        "both branches meet at 0",
    ),
    (
        "activations.cuh",
        "return (z > 0 ? A(1) : small) / (1 + small);",
        "at 0 exp(-|z|) is 1",
    ),
    (
        "columns.cuh",
        "__device__ void next() { item += (long long)gridDim.y * apart; }",
        "blocks go through the chunks of others too: slower, and the same",
    ),
    (
        "columns.cuh",
        "return tile * width <= channels;",
        "one more turn, over a tile of no columns",
    ),
    (
        "columns.cuh",
        "__device__ bool speaks() const { return inside() && thread() <= width; } // this thread does, for its column",
        "two threads write the same",
    ),
    (
        "common.cuh",
        "__device__ inline A larger(A a, A b) { return a >= b || a != a ? a : b; }",
        "they are equal, or zeros of two signs",
    ),
    (
        "common.cuh",
        "__device__ inline A smaller(A a, A b) { return a <= b || a != a ? a : b; }",
        "they are equal, or zeros of two signs",
    ),
    (
        "common.cuh",
        "__device__ inline A larger(A b, A a) { return a > b || a != a ? a : b; }",
        "the larger of two either way; of zeros it may be the other",
    ),
    (
        "common.cuh",
        "__device__ inline A smaller(A b, A a) { return a < b || a != a ? a : b; }",
        "the smaller of two either way; of zeros it may be the other",
    ),
    (
        "common.cuh",
        "__device__ static A join(A b, A a) { return a + b; }",
        "a sum either way",
    ),
    (
        "common.cuh",
        "__device__ static A join(A b, A a) { return larger(a, b); }",
        "the larger of two either way; of zeros it may be the other",
    ),
    (
        "common.cuh",
        "if (threadIdx.y % 32 == 0) partial[threadIdx.x / 32] = value;",
        "all threads of a warp write what they agree on",
    ),
    (
        "convolution.cu",
        "while (first <= stride && (start + before - first * dilation) % stride) first++;",
        "a first tap beyond the stride is none either",
    ),
    (
        "embedding.cu",
        "for (long long start = 0; start <= n; start += 256) {",
        "one more turn, over a tile of no indices",
    ),
    (
        "embedding.cu",
        "int length = n - start <= 256 ? int(n - start) : 256;",
        "both are 256 where they are equal",
    ),
    (
        "embedding.cu",
        "for (long long k = (long long)blockIdx.x * blockDim.y + threadIdx.y; k < n; "
        "k += (long long)gridDim.y * blockDim.y) {",
        "blocks go through the places of others too: slower, and the same",
    ),
    (
        "embedding.cu",
        "for (long long f = threadIdx.x; f < features; f += blockDim.y) {",
        "several threads write the same sums: slower, and the same",
    ),
    (
        "embedding.cu",
        "long long low = k - 1, high = n; // the first place of the next index lies in between",
        "a search in order may begin one earlier",
    ),
    (
        "normalization.cu",
        "const T* x, const A* scale, const A* offset, T* output, const Chunk& chunk, A mean, A epsilon, A variance) {",
        "only their sum is used",
    ),
    (
        "random.cu",
        "__device__ inline float rounded_product(float b, float a) { return __fmul_rn(a, b); }",
        "a product either way",
    ),
    (
        "random.cu",
        "__device__ inline double rounded_product(double b, double a) { return __dmul_rn(a, b); }",
        "a product either way",
    ),
    (
        "random.cu",
        "__device__ inline float rounded_sum(float b, float a) { return __fadd_rn(a, b); }",
        "a sum either way",
    ),
    (
        "random.cu",
        "__device__ inline double rounded_sum(double b, double a) { return __dadd_rn(a, b); }",
        "a sum either way",
    ),
    (
        "random.cu",
        "A angle = A(6.283185307179586) * ((whole(words, i + 1, A(0)) - A(0.5)) * unit);",
        "2**-32 of a turn, and less in float64, is lost in rounding",
    ),
    (
        "rows.cuh",
        "row##_first <= (rows); \\",
        "one more turn, of rows that are none",
    ),
    (
        "softmax.cu",
        "by_logits[start + j] = T(((z > 0 ? A(1) : small) / (1 + small) - A(targets[start + j])) * share);",
        "at 0 exp(-|z|) is 1",
    ),
    (
        "update.cu",
        "return isfinite(norm) ? A(T(A(limit / (norm >= limit ? norm : limit)))) : not_a_number();",
        "they are equal",
    ),
]
EQUIVALENT = {(file, line) for file, line, _ in _LISTED}
