// Columns that are reduced over many rows: the channels in tiles of `width` (a power of two up to 32) and the rows in
// `chunks`, each summed up by one block. Tiles and chunks follow from the shape alone, and chunks are joined in one order,
// so that any grid gives the same numbers.
#pragma once

#include "common.cuh"

#define THREADS 512  // in a block, at most; a power of two, as is the block

__device__ inline int threads() { return blockDim.x * blockDim.y; }
__device__ inline int thread() { return threadIdx.y * blockDim.x + threadIdx.x; }

// The chunks that this block goes through, one after the other; or the first ones of its tiles, if they are `apart`.
struct Chunk {
    long long rows, channels, item;
    int chunks, width, apart;
    int index = 0;  // the chunk's number
    long long column = 0, first = 0, last = 0;  // this thread's column and rows

    __device__ Chunk(long long rows, long long channels, int chunks, int width, int apart)
        : rows(rows), channels(channels), item((long long)blockIdx.x * apart), chunks(chunks), width(width), apart(apart) {}

    __device__ bool exists() {
        long long tile = item / chunks, length = (rows + chunks - 1) / chunks;
        index = item - tile * chunks;
        column = tile * width + thread() % width;
        first = index * length + thread() / width;
        last = (index + 1) * length < rows ? (index + 1) * length : rows;
        return tile * width < channels;
    }
    __device__ void next() { item += (long long)gridDim.x * apart; }
    __device__ bool inside() const { return column < channels; }
    __device__ bool speaks() const { return inside() && thread() < width; }  // this thread does, for its column
};

#define FOR_EACH_CHUNK(chunk) for (Chunk chunk(rows, channels, chunks, width, 1); chunk.exists(); chunk.next())
#define FOR_EACH_TILE(chunk) for (Chunk chunk(rows, channels, chunks, width, chunks); chunk.exists(); chunk.next())
#define FOR_EACH_ROW_OF(chunk, row) for (long long row = chunk.first; row < chunk.last; row += threads() / chunk.width)

// The values of a column's threads, joined, in each of them.
template <class Value>
__device__ Value join_column(Value value, int width) {
    __shared__ Value all[THREADS];
    all[thread()] = value;
    __syncthreads();
    for (int half = threads() / 2; half >= width; half >>= 1) {
        if (thread() < half) {
            value.join(all[thread() + half]);
            all[thread()] = value;
        }
        __syncthreads();
    }
    value = all[thread() % width];
    __syncthreads();  // before the next one is written
    return value;
}

// partial is (chunks, channels) of Value
template <class Value>
__device__ void keep(A* partial, const Chunk& chunk, Value value) {
    value = join_column(value, chunk.width);
    if (chunk.speaks()) reinterpret_cast<Value*>(partial)[(long long)chunk.index * chunk.channels + chunk.column] = value;
}

// All chunks joined, in every thread of the column.
template <class Value>
__device__ Value joined(const A* partial, const Chunk& chunk) {
    Value value = {0, 0, 0};
    if (chunk.inside()) {
        for (int i = thread() / chunk.width; i < chunk.chunks; i += threads() / chunk.width) {
            value.join(reinterpret_cast<const Value*>(partial)[(long long)i * chunk.channels + chunk.column]);
        }
    }
    return join_column(value, chunk.width);
}
