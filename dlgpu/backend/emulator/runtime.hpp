// The part of CUDA C++ that kernels use, on a CPU.
//
// Each thread of a block is a fiber: it runs until it reaches a barrier or a warp collective, and then the next one runs.
// Blocks are independent and are shared among the machine's cores. A fiber is entered once by makecontext; after that
// _setjmp and _longjmp switch without a system call.
#pragma once

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <string>
#include <thread>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __shared__ static thread_local  // a host thread runs one block at a time
#define __align__(n) __attribute__((aligned(n)))
#define __CUDA_EMULATOR__ 1

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x = 1, y = 1, z = 1; };

namespace emulator {

constexpr int WARP = 32;
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t STACK = 256 * 1024;
#else
constexpr size_t STACK = 64 * 1024;
#endif

enum class State { ready, at_barrier, at_collective, returned };

// A copy to shared memory that its thread has not waited for; nothing is copied from null, but zeros.
struct Copy {
    void* to;
    const void* from;
    int bytes, group;
};

struct Fiber {
    uint3 thread;
    int linear;
    State state;
    const char* file;  // of the barrier or collective at which it waits
    int line;
    bool for_grid = false;  // waits at a barrier of the whole grid
    bool entered = false;
    char* stack = nullptr;
    ucontext_t context;
    jmp_buf point;
    void* fake_stack = nullptr;
    std::vector<Copy> copies;
    int groups = 0;  // of copies, that have been ended
};

// What the lanes of one mask exchange; two buffers, so that a fast lane can begin the next exchange while slow ones read.
struct Exchange {
    unsigned mask;
    unsigned arrived = 0;
    unsigned generation = 0;
    alignas(16) unsigned char slots[2][WARP][16];
};

// The blocks of a cooperative launch, each on a host thread of its own, where they wait for each other.
struct Grid {
    const int blocks;
    std::mutex lock;
    std::condition_variable changed;
    int waiting = 0, ended = 0;
    unsigned turn = 0;

    bool stuck() const { return ended && waiting + ended >= blocks; }

    // Whether all blocks came; else some have ended.
    bool meet() {
        std::unique_lock<std::mutex> held(lock);
        unsigned mine = turn;
        if (++waiting == blocks) {
            waiting = 0;
            turn++;
        }
        changed.notify_all();
        changed.wait(held, [&] { return turn != mine || stuck(); });
        return turn != mine;
    }
    void end() {
        std::lock_guard<std::mutex> held(lock);
        ended++;
        changed.notify_all();
    }
};

struct Block {
    std::vector<Fiber> fibers;
    std::vector<std::vector<Exchange>> exchanges;  // of each warp
    std::vector<unsigned char> dynamic_shared;
    uint3 index;
    dim3 dimensions, grid;
    int threads = 0, waiting = 0, returned = 0;
    unsigned launches = 0;      // before this one
    int votes = 0;              // of a __syncthreads_count
    int votes_before = 0;       // of the barrier that has just opened
    Grid* cooperative = nullptr;
    void (*body)(void*) = nullptr;
    void* arguments = nullptr;
    jmp_buf scheduler;
    ucontext_t scheduler_context;
    const void* scheduler_stack = nullptr;
    size_t scheduler_stack_size = 0;
    std::string error;
};

inline thread_local Block* block = nullptr;
inline thread_local Fiber* current = nullptr;

inline std::string place(const char* file, int line) { return std::string(file) + ":" + std::to_string(line); }

inline void switch_to_scheduler() {
    Fiber* self = current;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&self->fake_stack, block->scheduler_stack, block->scheduler_stack_size);
    swapcontext(&self->context, &block->scheduler_context);
    __sanitizer_finish_switch_fiber(self->fake_stack, nullptr, nullptr);
#else
    if (_setjmp(self->point) == 0) _longjmp(block->scheduler, 1);
#endif
}

inline void fiber_main() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &block->scheduler_stack, &block->scheduler_stack_size);
#endif
    for (;;) {  // one turn for each block that this host thread runs
        block->body(block->arguments);
        current->state = State::returned;
        block->returned++;
        switch_to_scheduler();
    }
}

inline void resume(Fiber& fiber) {
    current = &fiber;
    bool first = !fiber.entered;
    if (first) {
        fiber.entered = true;
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack;
        fiber.context.uc_stack.ss_size = STACK;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, fiber_main, 0);
    }
#if defined(__SANITIZE_ADDRESS__)
    void* fake_stack = nullptr;
    __sanitizer_start_switch_fiber(&fake_stack, fiber.stack, STACK);
    swapcontext(&block->scheduler_context, &fiber.context);
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#else
    if (_setjmp(block->scheduler) == 0) {
        if (first) setcontext(&fiber.context);
        _longjmp(fiber.point, 1);
    }
#endif
}

// The kernel cannot go on: the message is reported and the launch ends. Does not return.
inline void fail(const std::string& message) {
    if (block->error.empty()) block->error = message;
    for (;;) switch_to_scheduler();
}

inline std::string coordinates(const uint3& i) {
    return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")";
}

inline int barrier(int vote, const char* file, int line) {
    current->file = file;
    current->line = line;
    current->state = State::at_barrier;
    block->waiting++;
    block->votes += vote;
    switch_to_scheduler();
    return block->votes_before;
}

inline void grid_barrier(const unsigned* arrivals, const char* file, int line) {
    if (!block->cooperative) fail(place(file, line) + ": a barrier of the grid in a launch that is not cooperative");
    if (*arrivals) fail(place(file, line) + ": the counter of a grid's barrier must be zero at first");
    current->for_grid = true;
    barrier(0, file, line);
}

inline unsigned existing_lanes() {
    int first = current->linear / WARP * WARP;
    int count = std::min(WARP, block->threads - first);
    return count == WARP ? 0xffffffffu : (1u << count) - 1;
}

// Every lane of `mask` leaves a value and reads those of the others, once all have come.
template <class V>
const unsigned char (*exchange(unsigned mask, V value, const char* file, int line))[16] {
    static_assert(sizeof(V) <= 16, "at most 16 bytes can be exchanged");
    int lane = current->linear % WARP;
    if (!(mask >> lane & 1)) fail(place(file, line) + ": lane " + std::to_string(lane) + " is not in its own mask");
    auto& all = block->exchanges[current->linear / WARP];
    size_t found = 0;
    while (found < all.size() && all[found].mask != mask) found++;
    if (found == all.size()) {
        all.emplace_back();
        all[found].mask = mask;
    }
    unsigned turn = all[found].generation & 1;
    std::memcpy(all[found].slots[turn][lane], &value, sizeof(V));
    all[found].arrived |= 1u << lane;
    if (all[found].arrived == (mask & existing_lanes())) {
        all[found].arrived = 0;
        all[found].generation++;
        int first = current->linear / WARP * WARP;
        for (int i = 0; i < WARP; i++) {
            if (mask >> i & 1 && first + i < block->threads) block->fibers[first + i].state = State::ready;
        }
    } else {
        current->file = file;
        current->line = line;
        current->state = State::at_collective;
        switch_to_scheduler();
    }
    return block->exchanges[current->linear / WARP][found].slots[turn];
}

template <class V>
V slot(const unsigned char* bytes) {
    V value;
    std::memcpy(&value, bytes, sizeof(V));
    return value;
}

// What is wrong when threads wait for others that never come.
inline void explain_deadlock() {
    const Fiber* stuck = nullptr;
    int waiting = 0;
    for (int i = 0; i < block->threads; i++) {
        const Fiber& f = block->fibers[i];
        if (f.state == State::at_barrier || f.state == State::at_collective) {
            if (!stuck || (stuck->state == State::at_barrier && f.state == State::at_collective)) stuck = &f;
        }
    }
    for (int i = 0; i < block->threads; i++) {
        const Fiber& f = block->fibers[i];
        waiting += f.state == stuck->state && f.line == stuck->line && f.file == stuck->file;
    }
    const char* what = stuck->state == State::at_barrier ? "barrier" : "warp collective";
    block->error = place(stuck->file, stuck->line) + ": " + what + " reached by " + std::to_string(waiting) + " of " +
                   std::to_string(block->threads) + " threads of block " + coordinates(block->index) + "; " +
                   std::to_string(block->returned) + " have returned and the others wait elsewhere";
}

inline void open_barrier() {
    const Fiber& first = block->fibers[0];
    for (int i = 0; i < block->threads; i++) {
        const Fiber& f = block->fibers[i];
        if (f.line != first.line || f.file != first.file || f.for_grid != first.for_grid) return explain_deadlock();
    }
    if (first.for_grid && !block->cooperative->meet()) {
        Grid& g = *block->cooperative;
        block->error = place(first.file, first.line) + ": the grid's barrier was reached by " + std::to_string(g.waiting) +
                       " of " + std::to_string(g.blocks) + " blocks; the others have ended";
        return;
    }
    for (int i = 0; i < block->threads; i++) {
        block->fibers[i].state = State::ready;
        block->fibers[i].for_grid = false;
    }
    block->votes_before = block->votes;
    block->votes = block->waiting = 0;
}

// Each warp as far as it gets before the next one runs, from the last thread to the first in every second turn, block and
// launch: whatever a missing barrier leaves to chance goes wrong in one of them. Returns whether any thread could run.
inline bool run_warps(bool backwards) {
    int warps = (block->threads + WARP - 1) / WARP;
    bool moved = false;
    for (int n = 0; n < warps; n++) {
        int first = (backwards ? warps - 1 - n : n) * WARP, lanes = std::min(WARP, block->threads - first);
        for (bool again = true; again;) {
            again = false;
            for (int i = 0; i < lanes && block->error.empty(); i++) {
                Fiber& fiber = block->fibers[first + (backwards ? lanes - 1 - i : i)];
                if (fiber.state != State::ready) continue;
                resume(fiber);
                again = moved = true;
            }
        }
    }
    return moved;
}

inline void run_block() {
    for (auto& all : block->exchanges) {
        for (auto& e : all) e.arrived = e.generation = 0;
    }
    for (int i = 0; i < block->threads; i++) {
        block->fibers[i].state = State::ready;
        block->fibers[i].for_grid = false;
        block->fibers[i].copies.clear();
    }
    block->returned = block->waiting = block->votes = 0;
    unsigned turn = block->index.x + block->index.y + block->index.z + block->launches;
    while (block->returned < block->threads && block->error.empty()) {
        bool moved = run_warps(turn++ % 2);
        if (!block->error.empty() || block->returned == block->threads) break;
        if (block->waiting == block->threads) {
            open_barrier();
        } else if (!moved) {
            explain_deadlock();
        }
    }
}

inline void prepare(Block& b, dim3 grid, dim3 dimensions, size_t shared) {
    b.grid = grid;
    b.dimensions = dimensions;
    b.threads = dimensions.x * dimensions.y * dimensions.z;
    b.error.clear();
    b.dynamic_shared.assign(shared, 0xff);  // NaN, so that reading it before writing it shows
    b.fibers.reserve(1024);  // a fiber that waits knows its own address
    while ((int)b.fibers.size() < b.threads) {
        b.fibers.emplace_back();
        b.fibers.back().stack = (char*)mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    }
    b.exchanges.resize((b.threads + WARP - 1) / WARP);
    for (int i = 0; i < b.threads; i++) {
        Fiber& f = b.fibers[i];
        f.linear = i;
        f.thread = {i % dimensions.x, i / dimensions.x % dimensions.y, i / (dimensions.x * dimensions.y)};
    }
}

struct Workers {  // the blocks of a host thread outlive a launch; their stacks are freed with the thread
    Block b;
    ~Workers() {
        for (auto& f : b.fibers) munmap(f.stack, STACK);
    }
};

inline std::string launch(
    dim3 grid, dim3 dimensions, size_t shared, bool cooperative, void (*body)(void*), void* arguments) {
    static std::atomic<unsigned> launches{0};
    unsigned before = launches++;
    long long blocks = (long long)grid.x * grid.y * grid.z;
    Grid together{(int)blocks};
    std::atomic<long long> next{0};
    std::mutex lock;
    std::string error;
    auto work = [&] {
        static thread_local Workers workers;
        Block& b = workers.b;
        prepare(b, grid, dimensions, shared);
        b.cooperative = cooperative ? &together : nullptr;
        b.body = body;
        b.arguments = arguments;
        b.launches = before;
        Block* outer = block;
        block = &b;
        for (long long i; (i = next++) < blocks;) {
            b.index = {(unsigned)(i % grid.x), (unsigned)(i / grid.x % grid.y), (unsigned)(i / grid.x / grid.y)};
            run_block();
            if (!b.error.empty()) {
                next = blocks;
                for (auto& f : b.fibers) f.entered = false;  // what they were doing is abandoned
                std::lock_guard<std::mutex> held(lock);
                if (error.empty()) error = b.error;
            }
            if (cooperative) break;
        }
        if (cooperative) together.end();
        block = outer;
    };
    // a host thread costs more than a few thousand fiber switches
    long long useful = std::min<long long>(blocks, blocks * dimensions.x * dimensions.y * dimensions.z / 4096);
    long long workers = cooperative ? blocks : std::min<long long>(useful, std::thread::hardware_concurrency());
    std::vector<std::thread> others;
    for (long long n = 1; n < workers; n++) others.emplace_back(work);
    work();
    for (auto& t : others) t.join();
    return error;
}

// Calls a kernel of any signature with an array of pointers to its arguments.
template <class... A>
struct Call {
    void (*kernel)(A...);
    void** arguments;
    template <size_t... I>
    void run(std::index_sequence<I...>) { kernel(*reinterpret_cast<std::remove_const_t<std::remove_reference_t<A>>*>(arguments[I])...); }
    static void body(void* self) { static_cast<Call*>(self)->run(std::index_sequence_for<A...>()); }
};

template <class... A>
std::string launch_kernel(
    void (*kernel)(A...), dim3 grid, dim3 dimensions, size_t shared, bool cooperative, void** arguments) {
    Call<A...> call{kernel, arguments};
    return launch(grid, dimensions, shared, cooperative, Call<A...>::body, &call);
}

template <class V>
V* dynamic_shared() { return reinterpret_cast<V*>(block->dynamic_shared.data()); }

}  // namespace emulator

#define threadIdx (emulator::current->thread)
#define blockIdx (emulator::block->index)
#define blockDim (emulator::block->dimensions)
#define gridDim (emulator::block->grid)
#define warpSize 32

#undef assert
#define assert(condition) \
    ((condition) ? (void)0 : emulator::fail(emulator::place(__FILE__, __LINE__) + ": assertion failed: " #condition))

// -- barriers, shuffles and votes; the defaults know where the call stands

#define EMULATOR_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(EMULATOR_HERE) { emulator::barrier(0, file, line); }
inline int __syncthreads_count(int p, EMULATOR_HERE) { return emulator::barrier(p != 0, file, line); }
inline int __syncthreads_or(int p, EMULATOR_HERE) { return emulator::barrier(p != 0, file, line) != 0; }
inline int __syncthreads_and(int p, EMULATOR_HERE) { return emulator::barrier(p == 0, file, line) == 0; }
inline void __syncwarp(unsigned mask = 0xffffffffu, EMULATOR_HERE) { emulator::exchange(mask, 0, file, line); }
inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
inline void __threadfence_block() {}
inline unsigned __activemask() { return emulator::existing_lanes(); }

// The value of lane `source`, or one's own where there is no such lane in the segment.
template <class V>
V emulator_shuffle(unsigned mask, V value, int source, bool inside, const char* file, int line) {
    auto slots = emulator::exchange(mask, value, file, line);
    if (!inside) return value;
    if (!((mask & emulator::existing_lanes()) >> source & 1)) {
        emulator::fail(emulator::place(file, line) + ": shuffle from a lane outside the mask or the block");
    }
    return emulator::slot<V>(slots[source]);
}

inline int emulator_lane() { return emulator::current->linear % emulator::WARP; }

template <class V>
V __shfl_sync(unsigned mask, V value, int source, int width = 32, EMULATOR_HERE) {
    int lane = emulator_lane(), first = lane / width * width;
    return emulator_shuffle(mask, value, first + (source & (width - 1)), true, file, line);
}
template <class V>
V __shfl_up_sync(unsigned mask, V value, unsigned delta, int width = 32, EMULATOR_HERE) {
    int lane = emulator_lane(), source = lane - (int)delta;
    return emulator_shuffle(mask, value, source, source >= lane / width * width, file, line);
}
template <class V>
V __shfl_down_sync(unsigned mask, V value, unsigned delta, int width = 32, EMULATOR_HERE) {
    int lane = emulator_lane(), source = lane + (int)delta;
    return emulator_shuffle(mask, value, source, source < lane / width * width + width && (emulator::existing_lanes() >> source & 1), file, line);
}
template <class V>
V __shfl_xor_sync(unsigned mask, V value, int bits, int width = 32, EMULATOR_HERE) {
    int lane = emulator_lane(), source = lane ^ bits;
    return emulator_shuffle(mask, value, source, source < lane / width * width + width && (emulator::existing_lanes() >> source & 1), file, line);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, EMULATOR_HERE) {
    auto slots = emulator::exchange(mask, predicate != 0, file, line);
    unsigned found = 0;
    for (int i = 0; i < 32; i++) {
        if ((mask & emulator::existing_lanes()) >> i & 1 && slots[i][0]) found |= 1u << i;
    }
    return found;
}
inline int __any_sync(unsigned mask, int predicate, EMULATOR_HERE) { return __ballot_sync(mask, predicate, file, line) != 0; }
inline int __all_sync(unsigned mask, int predicate, EMULATOR_HERE) {
    return __ballot_sync(mask, predicate, file, line) == (mask & emulator::existing_lanes());
}

// -- atomics: blocks run on several host threads

template <class V, class F>
V emulator_atomic(V* address, F update) {
    V old, made;
    __atomic_load(address, &old, __ATOMIC_RELAXED);
    do {
        made = update(old);
    } while (!__atomic_compare_exchange(address, &old, &made, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
    return old;
}
template <class V> V atomicAdd(V* a, std::common_type_t<V> v) { return emulator_atomic(a, [v](V o) { return V(o + v); }); }
template <class V> V atomicSub(V* a, std::common_type_t<V> v) { return emulator_atomic(a, [v](V o) { return V(o - v); }); }
template <class V> V atomicMin(V* a, std::common_type_t<V> v) { return emulator_atomic(a, [v](V o) { return std::min(o, v); }); }
template <class V> V atomicMax(V* a, std::common_type_t<V> v) { return emulator_atomic(a, [v](V o) { return std::max(o, v); }); }
template <class V> V atomicAnd(V* a, std::common_type_t<V> v) { return emulator_atomic(a, [v](V o) { return V(o & v); }); }
template <class V> V atomicOr(V* a, std::common_type_t<V> v) { return emulator_atomic(a, [v](V o) { return V(o | v); }); }
template <class V> V atomicXor(V* a, std::common_type_t<V> v) { return emulator_atomic(a, [v](V o) { return V(o ^ v); }); }
template <class V> V atomicExch(V* a, std::common_type_t<V> v) { return emulator_atomic(a, [v](V) { return v; }); }
template <class V> V atomicCAS(V* a, std::common_type_t<V> expected, std::common_type_t<V> v) {
    return emulator_atomic(a, [=](V o) { return o == expected ? v : o; });
}

// -- vector types

#define EMULATOR_VECTORS(type, name, bytes) \
    struct __align__(bytes * 2) name##2 { type x, y; }; \
    struct name##3 { type x, y, z; }; \
    struct __align__(bytes * 4 > 16 ? 16 : bytes * 4) name##4 { type x, y, z, w; }; \
    inline name##2 make_##name##2(type x, type y) { return {x, y}; } \
    inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; } \
    inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
EMULATOR_VECTORS(float, float, 4)
EMULATOR_VECTORS(double, double, 8)
EMULATOR_VECTORS(int, int, 4)
EMULATOR_VECTORS(short, short, 2)
EMULATOR_VECTORS(unsigned char, uchar, 1)
struct __align__(8) uint2 { unsigned x, y; };
struct __align__(16) uint4 { unsigned x, y, z, w; };
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// -- half precision: stored in 16 bits, computed in float

template <class V, class W>
V emulator_bits(W from) {
    static_assert(sizeof(V) == sizeof(W), "sizes differ");
    V to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

struct __half {
    uint16_t bits;
    __half() = default;
    __half(float f) : bits(emulator_bits<uint16_t>((_Float16)f)) {}
    operator float() const { return (float)emulator_bits<_Float16>(bits); }
};
struct __nv_bfloat16 {
    uint16_t bits;
    __nv_bfloat16() = default;
    __nv_bfloat16(float f) {
        uint32_t u = emulator_bits<uint32_t>(f);
        // to nearest, ties to even; a NaN stays one
        bits = f != f ? 0x7fff : (u + 0x7fff + (u >> 16 & 1)) >> 16;
    }
    operator float() const { return emulator_bits<float>((uint32_t)bits << 16); }
};
using half = __half;
using nv_bfloat16 = __nv_bfloat16;
inline float __half2float(__half h) { return h; }
inline __half __float2half(float f) { return f; }
inline __half __float2half_rn(float f) { return f; }
inline float __bfloat162float(__nv_bfloat16 h) { return h; }
inline __nv_bfloat16 __float2bfloat16(float f) { return f; }
inline __nv_bfloat16 __float2bfloat16_rn(float f) { return f; }

// -- arithmetic

using std::isfinite;
using std::isinf;
using std::isnan;
template <class A, class B> std::common_type_t<A, B> min(A a, B b) { return b < a ? b : a; }
template <class A, class B> std::common_type_t<A, B> max(A a, B b) { return a < b ? b : a; }
template <class V> V __ldg(const V* p) { return *p; }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1 / x; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline float rsqrtf(float x) { return 1 / sqrtf(x); }
inline double rsqrt(double x) { return 1 / sqrt(x); }
inline float __int_as_float(int i) { return emulator_bits<float>(i); }
inline int __float_as_int(float f) { return emulator_bits<int>(f); }
inline float __uint_as_float(unsigned i) { return emulator_bits<float>(i); }
inline unsigned __float_as_uint(float f) { return emulator_bits<unsigned>(f); }
inline double __longlong_as_double(long long i) { return emulator_bits<double>(i); }
inline long long __double_as_longlong(double d) { return emulator_bits<long long>(d); }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) { return (unsigned __int128)a * b >> 64; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }

#include "tensor_cores.hpp"
