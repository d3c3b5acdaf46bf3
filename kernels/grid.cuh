// A barrier for all blocks of a cooperative launch, which run at once.
//
// CUDA's own, in cooperative_groups.h, is in the toolkit; this one needs a driver only.
#pragma once

// Every thread of every block comes here; what any of them wrote before can be read by all of them after.
// `arrivals` is zero at the launch, and of this launch alone.
#ifdef __CUDA_EMULATOR__
inline void grid_barrier(unsigned* arrivals, EMULATOR_HERE) { emulator::grid_barrier(arrivals, file, line); }
#else
__device__ inline void grid_barrier(unsigned* arrivals) {
    __syncthreads();
    if (threadIdx.x + threadIdx.y + threadIdx.z == 0) {
        // Together the blocks add 2**31: the sum's highest bit flips when the last one comes, and the others are zero again.
        bool first = blockIdx.x + blockIdx.y + blockIdx.z == 0;
        unsigned blocks = gridDim.x * gridDim.y * gridDim.z;
        __threadfence();
        unsigned before = atomicAdd(arrivals, first ? 0x80000000u - (blocks - 1) : 1u);
        while (((before ^ *(volatile unsigned*)arrivals) & 0x80000000u) == 0) {}
        __threadfence();
    }
    __syncthreads();
}
#endif
