// Philox 4x32-10 (Salmon et al., 2011): four random words are a function of a 128-bit counter and a 64-bit key.
#pragma once

struct Words {
    unsigned at[4];
};

// The seed, and the counter of a draw's first block. The low half of the counter counts on, and wraps.
struct Philox {
    unsigned long long seed, low, high;

    __device__ Words block(unsigned long long index) const {
        unsigned long long count = low + index;
        unsigned key_0 = (unsigned)seed, key_1 = (unsigned)(seed >> 32);
        Words c = {{(unsigned)count, (unsigned)(count >> 32), (unsigned)high, (unsigned)(high >> 32)}};
#pragma unroll
        for (int round = 0; round < 10; round++) {
            unsigned low_0 = 0xD2511F53u * c.at[0], high_0 = __umulhi(0xD2511F53u, c.at[0]);
            unsigned low_1 = 0xCD9E8D57u * c.at[2], high_1 = __umulhi(0xCD9E8D57u, c.at[2]);
            c = {{high_1 ^ c.at[1] ^ key_0, low_1, high_0 ^ c.at[3] ^ key_1, low_0}};
            key_0 += 0x9E3779B9u;
            key_1 += 0xBB67AE85u;
        }
        return c;
    }
};

// A draw that begins at (seed, counter) or, in a step that is replayed, so far after the (seed, counter) in `state`.
__device__ inline Philox philox_at(
    const unsigned long long* state, unsigned long long seed, unsigned long long low, unsigned long long high) {
    if (!state) return {seed, low, high};
    unsigned long long sum = state[1] + low;
    return {state[0], sum, state[2] + high + (sum < low)};
}

// Two 64-bit draws of four words, the lower word first.
__device__ inline unsigned long long draw(const Words& words, int i) {
    return (unsigned long long)words.at[2 * i + 1] << 32 | words.at[2 * i];
}
