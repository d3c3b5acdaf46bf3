"""Mutants that change no result, and why."""

# file, the changed line, the reason
_LISTED = [
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
        "const T* x, const T* scale, const T* offset, T* output, const Chunk& chunk, A mean, A epsilon, A variance) {",
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
]
EQUIVALENT = {(file, line) for file, line, _ in _LISTED}
