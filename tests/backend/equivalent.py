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
]
EQUIVALENT = {(file, line) for file, line, _ in _LISTED}
