// What a warp's tensor cores do, for kernels/mma.cuh: each lane reads from the others' registers what the hardware would.
#pragma once

namespace emulator {

inline unsigned tf32(unsigned bits) {
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffffffu;
    if ((bits & 0x7f800000u) == 0x7f800000u) return bits;
    return (bits + 0x1000u) & ~0x1fffu;
}

inline void do_copy(const Copy& c) {
    if (c.from) std::memcpy(c.to, c.from, c.bytes);
    else std::memset(c.to, 0, c.bytes);
}

// cp.async, of 4 bytes or more: in every second block and launch at once, else not before it is waited for.
inline void begin_copy(void* to, const void* from, int bytes, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    if (((size_t)to | (size_t)from) % bytes) fail(place(file, line) + ": a copy from or to no multiple of its size");
    Copy c{to, from, bytes, current->groups};
    if (bytes < 4 || (block->launches + block->index.x) % 2) do_copy(c);
    else current->copies.push_back(c);
}

inline void wait_for_copies(int groups) {
    auto& copies = current->copies;
    auto done = copies.begin();
    for (; done != copies.end() && done->group < current->groups - groups; ++done) do_copy(*done);
    copies.erase(copies.begin(), done);
}

// ldmatrix: lane 8 * m + r brings the address of row r of matrix m.
template <bool TURNED>
void load_matrices(unsigned (&found)[4], const void* row, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    if ((size_t)row % 16) fail(place(file, line) + ": a matrix's row does not begin at a multiple of 16 bytes");
    auto slots = exchange(0xffffffffu, row, file, line);
    int i = current->linear % WARP / 4, j = current->linear % 4;
    for (int m = 0; m < 4; m++) {
        auto at = [&](int r) { return slot<const unsigned char*>(slots[8 * m + r]); };
        if (TURNED) {
            for (int k = 0; k < 2; k++) std::memcpy((char*)&found[m] + 2 * k, at(2 * j + k) + 2 * i, 2);
        } else {
            std::memcpy(&found[m], at(i) + 4 * j, 4);
        }
    }
}

// The values of one index of a fragment, by depth, out of the registers of the four lanes that have them.
template <class S, int STEP>
void along(const unsigned char (*slots)[16], int index, float (&values)[STEP]) {
    for (int j = 0; j < 4; j++) {
        unsigned registers[4];
        std::memcpy(registers, slots[4 * (index % 8) + j], 16);
        for (int half = 0; half < 2; half++) {
            unsigned bits = registers[2 * half + index / 8];
            if constexpr (sizeof(S) == 4) {
                std::memcpy(&values[4 * half + j], &bits, 4);
            } else {
                S pair[2];
                std::memcpy(pair, &bits, 4);
                for (int k = 0; k < 2; k++) values[8 * half + 2 * j + k] = pair[k];
            }
        }
    }
}

// mma of each pair of fragments.
template <class S, class Fragment, int M, int N>
void multiply_add(
    const Fragment (&left)[M], const Fragment (&right)[N], float (&sums)[M][N][2][4],
    const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    constexpr int STEP = 32 / sizeof(S);
    int i = current->linear % WARP / 4, j = current->linear % 4;
    float rows[M][2][STEP], columns[N][4][STEP];
    for (int m = 0; m < M; m++) {
        auto slots = exchange(0xffffffffu, left[m], file, line);
        for (int e = 0; e < 2; e++) along<S>(slots, i + 8 * e, rows[m][e]);
    }
    for (int n = 0; n < N; n++) {
        auto slots = exchange(0xffffffffu, right[n], file, line);
        for (int e = 0; e < 4; e++) along<S>(slots, 8 * (e / 2) + 2 * j + e % 2, columns[n][e]);
    }
    for (int m = 0; m < M; m++) {
        for (int n = 0; n < N; n++) {
            for (int e = 0; e < 8; e++) {
                float& sum = sums[m][n][e / 4][e % 4];
                const float *a = rows[m][e / 2 % 2], *b = columns[n][2 * (e / 4) + e % 2];
                for (int k = 0; k < STEP; k++) sum += a[k] * b[k];
            }
        }
    }
}

}  // namespace emulator
