// Tensor cores: sums of a whole warp by one instruction, and the copies that feed them. Needs sm_80.
//
// Values are rounded to TF32 (float), or taken as they are (float16, bfloat16); products are exact, sums are float32.
// The emulator computes the same from the same fragments (its tensor_cores.hpp), so that their layouts are tried there;
// only the order of the sums within an instruction, which CUDA leaves open, is its own.
#pragma once

#include "common.cuh"

#if defined(__CUDA_EMULATOR__) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800)
constexpr bool TENSOR_CORES = sizeof(T) <= 4;
#else
constexpr bool TENSOR_CORES = false;  // kernels are empty, and are not launched
#endif

struct __half;
template <class> struct IsHalf { static constexpr bool value = false; };
template <> struct IsHalf<__half> { static constexpr bool value = true; };

constexpr int STEP = 32 / sizeof(T);  // depth of an instruction's products

// 16 indices (rows of the left factor, columns of the right) by STEP, over the lanes of a warp: the register
// 2 * (in the second half of the depth) + (in the second half of the indices) of lane 4 * i + j has index i and, of 16
// bits, the depths 2 * j and 2 * j + 1, else depth j.
struct Fragment {
    unsigned at[4];
};

// Copies BYTES to shared memory, or zeros if nothing is `there`, without waiting where they can be copied so.
template <int BYTES>
__device__ inline void copy(T* to, const T* from, bool there) {
#ifdef __CUDA_EMULATOR__
    emulator::begin_copy(to, there ? from : nullptr, BYTES);
#else
    unsigned address = (unsigned)__cvta_generic_to_shared(to);
    int bytes = there ? BYTES : 0;  // the rest is filled with zeros
    if constexpr (BYTES == 16) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(bytes) : "memory");
    } else if constexpr (BYTES == 4) {
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(address), "l"(from), "r"(bytes) : "memory");
    } else {
        *to = there ? *from : T(0.0f);
    }
#endif
}

// Fetches what is at an address from memory to the cache, without waiting.
__device__ inline void fetch_ahead(const T* from) {
#ifndef __CUDA_EMULATOR__
    asm volatile("prefetch.global.L2 [%0];" ::"l"(from));
#endif
}

// Ends a group of copies.
__device__ inline void end_of_copies() {
#ifdef __CUDA_EMULATOR__
    emulator::current->groups++;
#else
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until all but the last GROUPS groups of this thread's copies have come.
template <int GROUPS>
__device__ inline void wait_for_copies() {
#ifdef __CUDA_EMULATOR__
    emulator::wait_for_copies(GROUPS);
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
#endif
}

// Four matrices of 8 rows of 16 bytes, one a register; lane 8 * m + r has the address of row r of matrix m. Lane
// 4 * i + j gets word j of row i or, TURNED, the 16-bit values of column i in rows 2 * j and 2 * j + 1.
template <bool TURNED>
__device__ inline Fragment load_matrices(const T* row) {
    Fragment f;
#ifdef __CUDA_EMULATOR__
    emulator::load_matrices<TURNED>(f.at, row);
#else
    unsigned address = (unsigned)__cvta_generic_to_shared(row);
    if constexpr (TURNED) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(f.at[0]), "=r"(f.at[1]), "=r"(f.at[2]), "=r"(f.at[3]) : "r"(address) : "memory");
    } else {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(f.at[0]), "=r"(f.at[1]), "=r"(f.at[2]), "=r"(f.at[3]) : "r"(address) : "memory");
    }
#endif
    return f;
}

// To the nearest of TF32, which has 10 bits after the point, ties away from zero.
__device__ inline unsigned tf32(unsigned bits) {
#ifdef __CUDA_EMULATOR__
    return emulator::tf32(bits);
#else
    unsigned rounded;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(__uint_as_float(bits)));
    return rounded;
#endif
}
__device__ inline void round_to_tf32(Fragment& f) {
#pragma unroll
    for (int i = 0; i < 4; i++) f.at[i] = tf32(f.at[i]);
}

// sums[m][n] += left[m] @ right[n], 16 x 16 each: [half][e] of lane 4 * i + j is in row i + 8 * (e / 2) and column
// 8 * half + 2 * j + e % 2.
template <int M, int N>
__device__ inline void multiply_add(const Fragment (&left)[M], const Fragment (&right)[N], float (&sums)[M][N][2][4]) {
#ifdef __CUDA_EMULATOR__
    emulator::multiply_add<T>(left, right, sums);
#else
#define DLGPU_MMA(TYPES) \
    asm volatile("mma.sync.aligned." TYPES " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[half]), "r"(b[half + 2]))
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
        for (int n = 0; n < N; n++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const auto& a = left[m].at;
                const auto& b = right[n].at;
                auto& c = sums[m][n][half];
                if constexpr (sizeof(T) == 4) DLGPU_MMA("m16n8k8.row.col.f32.tf32.tf32.f32");
                else if constexpr (IsHalf<T>::value) DLGPU_MMA("m16n8k16.row.col.f32.f16.f16.f32");
                else DLGPU_MMA("m16n8k16.row.col.f32.bf16.bf16.f32");
            }
        }
    }
#undef DLGPU_MMA
#endif
}
