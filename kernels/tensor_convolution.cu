// Convolution on tensor cores: the matrix products of convolution.cu, whose kernels have the same arguments.
//
// Values are copied in words of LEFT_WORD and RIGHT_WORD bytes: 16, where channels or filters are a multiple of that
// and begin at one, else those of one value.
#ifndef ACTIVATION
#define ACTIVATION linear
#endif
#ifndef TILE
#define TILE 64, 64, 32, 4
#endif
#ifndef LEFT_WORD
#define LEFT_WORD 16
#endif
#ifndef RIGHT_WORD
#define RIGHT_WORD 16
#endif
#include "convolution.cuh"
#include "tiles.cuh"

constexpr int BLOCKS = 384 / THREADS;  // a multiprocessor's; left alone, the compiler aims at more and spills registers
constexpr int LEFT = LEFT_WORD / sizeof(T), RIGHT = RIGHT_WORD / sizeof(T);  // values of a word

// Where a window begins: `at` values from the start of the source, in line y and column x of its image.
struct alignas(16) Place {
    long long at;
    int y, x;
};

// sum[pixel, column] for a tile: source (batch, length down, length across, groups * depth) times the kernel, whose
// columns are filters, or channels if BACK. `filters` are all groups', `columns` one group's. If POOLED, four rows are
// one window of the results, of which `down` and `across` count the windows.
template <bool BACK, bool POOLED = false>
__device__ void gather(
    T* memory, const T* source, const T* kernel, const Axis& down, const Axis& across, long long pixels, int depth,
    int columns, int groups, int group, int filters, int kernel_width, long long first_row, int first_column, Sums& sums) {
    using Left = Factor<tile.rows, true>;
    using Right = Factor<tile.columns, BACK>;
    constexpr int LEFT_WORDS = DEPTH / LEFT, RIGHT_WORDS = (BACK ? DEPTH : tile.columns) / RIGHT;
    __shared__ Place places[tile.rows];
    for (int i = threadIdx.x; i < tile.rows; i += THREADS) {
        long long row = first_row + i, pixel = POOLED ? row / WINDOW : row, line = pixel / across.results;
        int y = (int)(line % down.results), x = (int)(pixel % across.results);
        if (POOLED) y = 2 * y + i / 2 % 2, x = 2 * x + i % 2;
        y = y * down.scale + down.offset, x = x * across.scale + across.offset;
        long long at = ((line / down.results * down.length + y) * across.length + x) * groups * depth + group * depth;
        places[i] = row < pixels ? Place{at, y, x} : Place{0, NOWHERE, NOWHERE};
    }
    __syncthreads();
    const int total = down.taps * across.taps * depth;
    const int from_left = threadIdx.x % LEFT_WORDS * LEFT, from_right = threadIdx.x % RIGHT_WORDS * RIGHT;
    Walk of_source(depth, across.taps, from_left), of_kernel(depth, across.taps, from_right);
    auto load = [&](int step, T* left, T* right) {
        bool within = step * DEPTH + from_left < total;
        int down_by = of_source.down * down.step, across_by = of_source.across * across.step;
        long long by = ((long long)down_by * across.length + across_by) * groups * depth + of_source.channel;
#pragma unroll 4  // of short words there are many, and all their addresses at once would spill
        for (int i = threadIdx.x / LEFT_WORDS; i < tile.rows; i += THREADS / LEFT_WORDS) {
            Place p = places[i];
            int y = p.y + down_by, x = p.x + across_by;
            bool inside = within && y >= 0 && y < down.length && x >= 0 && x < across.length;
            copy<LEFT_WORD>(left + i * Left::STRIDE + from_left, inside ? source + p.at + by : source, inside);
        }
        of_source.move(DEPTH);
        if constexpr (BACK) {  // filters follow each other in memory
            long long tap = (down.first + of_kernel.down * down.every) * kernel_width + across.first + of_kernel.across * across.every;
            const T* from = kernel + (tap * columns + first_column) * filters + group * depth + of_kernel.channel;
            bool here = step * DEPTH + from_right < total;
#pragma unroll 4
            for (int i = threadIdx.x / RIGHT_WORDS; i < tile.columns; i += THREADS / RIGHT_WORDS) {
                bool there = here && first_column + i < columns;
                copy<RIGHT_WORD>(right + i * Right::STRIDE + from_right, there ? from + (long long)i * filters : kernel, there);
            }
            of_kernel.move(DEPTH);
        } else {
            const T* from = kernel + group * columns + first_column + from_right;
#pragma unroll 4
            for (int i = threadIdx.x / RIGHT_WORDS; i < DEPTH; i += THREADS / RIGHT_WORDS) {
                int k = step * DEPTH + i;
                bool there = k < total && first_column + from_right < columns;
                copy<RIGHT_WORD>(right + i * Right::STRIDE + from_right, there ? from + (long long)k * filters : kernel, there);
            }
        }
    };
    multiply_all<Left, Right>(memory, (total + DEPTH - 1) / DEPTH, load, [](const T*) {}, sums);
}

// output = activation(z + bias), where z is the convolution; z + bias is kept unless `z` is null.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) tensor_convolution_forward(
    const T* x, const T* kernel, const T* bias, T* output, T* z, long long batch, int height, int width, int channels,
    int out_height, int out_width, int filters, int groups, int kernel_height, int kernel_width, int stride_down,
    int stride_across, int top, int left, int dilation_down, int dilation_across) {
    extern __shared__ __align__(16) unsigned char memory[];
    if constexpr (TENSOR_CORES) {
        Axis down = forward_axis(height, out_height, kernel_height, stride_down, top, dilation_down);
        Axis across = forward_axis(width, out_width, kernel_width, stride_across, left, dilation_across);
        int columns = filters / groups, across_tiles = (columns + tile.columns - 1) / tile.columns;
        int group = blockIdx.x / across_tiles % groups, first_column = blockIdx.x % across_tiles * tile.columns;
        long long first_row = (long long)(blockIdx.x / across_tiles / groups) * tile.rows, pixels = batch * out_height * out_width;
        Sums sums = {};
        gather<false>((T*)memory, x, kernel, down, across, pixels, channels / groups, columns, groups, group, filters,
                      kernel_width, first_row, first_column, sums);
        each_sum(sums, [&](int row, int column, float sum) {
            int filter = group * columns + first_column + column;
            long long pixel = first_row + row;
            if (pixel < pixels && first_column + column < columns) {
                finish(sum, bias, output, z, pixel * filters + filter, filter);
            }
        });
    }
}

// The same, then of each window of 2 x 2 the largest: its value, its place in the window, and, unless `z` is null, its z.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) tensor_convolution_pooled(
    const T* x, const T* kernel, const T* bias, T* output, T* z, unsigned char* indices, long long batch, int height,
    int width, int channels, int windows_down, int windows_across, int filters, int groups, int kernel_height,
    int kernel_width, int stride_down, int stride_across, int top, int left, int dilation_down, int dilation_across) {
    extern __shared__ __align__(16) unsigned char memory[];
    if constexpr (TENSOR_CORES) {
        Axis down = forward_axis(height, windows_down, kernel_height, stride_down, top, dilation_down);
        Axis across = forward_axis(width, windows_across, kernel_width, stride_across, left, dilation_across);
        int columns = filters / groups, across_tiles = (columns + tile.columns - 1) / tile.columns;
        int group = blockIdx.x / across_tiles % groups, first_column = blockIdx.x % across_tiles * tile.columns;
        long long first_row = (long long)(blockIdx.x / across_tiles / groups) * tile.rows;
        long long pixels = batch * windows_down * windows_across * WINDOW;
        Sums sums = {};
        gather<false, true>((T*)memory, x, kernel, down, across, pixels, channels / groups, columns, groups, group,
                            filters, kernel_width, first_row, first_column, sums);
        each_sum(sums, [&](int row, int column, A sum) {
            bool there = first_row + row < pixels && first_column + column < columns;
            int filter = there ? group * columns + first_column + column : 0, own = row % WINDOW, best = own;
            A value = contender(sum, bias, filter), largest = value;
#pragma unroll
            for (int lanes = 4; lanes <= 8; lanes *= 2) {  // to the next row of a tile, and to the one after that
                A other = __shfl_xor_sync(0xffffffffu, largest, lanes);
                int place = __shfl_xor_sync(0xffffffffu, best, lanes);
                if (place > best ? beats(other, largest) : !beats(largest, other)) largest = other, best = place;
            }
            if (!there || best != own) return;
            long long at = (first_row + row) / WINDOW * filters + filter;
            output[at] = T(value);
            indices[at] = (unsigned char)best;
            if (z) z[at] = T(sum);
        });
    }
}

// Tiles of pixels that lie a stride apart, so that all see the same taps: none is multiplied by zeros.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) tensor_convolution_data(
    const T* grad, const T* kernel, T* grad_x, long long batch, int height, int width, int channels, int out_height,
    int out_width, int filters, int groups, int kernel_height, int kernel_width, int stride_down, int stride_across,
    int top, int left, int dilation_down, int dilation_across) {
    extern __shared__ __align__(16) unsigned char memory[];
    if constexpr (TENSOR_CORES) {
        int columns = channels / groups, across_tiles = (columns + tile.columns - 1) / tile.columns;
        int first_column = blockIdx.x % across_tiles * tile.columns, rest = blockIdx.x / across_tiles, group = rest % groups;
        int phases = stride_down * stride_across, phase = rest / groups % phases;
        Axis down = backward_axis(height, out_height, kernel_height, stride_down, top, dilation_down, phase / stride_across);
        Axis across = backward_axis(width, out_width, kernel_width, stride_across, left, dilation_across, phase % stride_across);
        long long first_row = (long long)(rest / groups / phases) * tile.rows, pixels = batch * down.results * across.results;
        if (first_row >= pixels) return;
        Sums sums = {};
        gather<true>((T*)memory, grad, kernel, down, across, pixels, filters / groups, columns, groups, group, filters,
                     kernel_width, first_row, first_column, sums);
        each_sum(sums, [&](int row, int column, float sum) {
            long long pixel = first_row + row;
            if (pixel >= pixels || first_column + column >= columns) return;
            long long line = pixel / across.results, image = line / down.results;
            long long y = down.start + line % down.results * down.pace, x = across.start + pixel % across.results * across.pace;
            grad_x[((image * height + y) * width + x) * channels + group * columns + first_column + column] = T(sum);
        });
    }
}

// The sums of one slice of the pixels: partial[slice] is (rows + 1, filters), a row for each value of a window, and in
// the last one the bias's, if `with_bias`; these are sums of what is not rounded.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) tensor_convolution_weights(
    const T* x, const T* grad, A* partial, int rows, bool with_bias, int slice_length, long long batch, int height,
    int width, int channels, int out_height, int out_width, int filters, int groups, int kernel_height,
    int kernel_width, int stride_down, int stride_across, int top, int left, int dilation_down, int dilation_across) {
    extern __shared__ __align__(16) unsigned char memory[];
    if constexpr (TENSOR_CORES) {
        using Left = Factor<tile.rows, false>;
        using Right = Factor<tile.columns, false>;
        constexpr int LEFT_WORDS = tile.rows / LEFT, RIGHT_WORDS = tile.columns / RIGHT;
        __shared__ Place places[tile.stages][DEPTH];  // where a step's pixels see the window's first tap
        int columns = filters / groups, depth = channels / groups, across_tiles = (columns + tile.columns - 1) / tile.columns;
        int group = blockIdx.x / across_tiles % groups, first_column = blockIdx.x % across_tiles * tile.columns;
        int first_row = blockIdx.x / across_tiles / groups * tile.rows;
        long long begin = (long long)blockIdx.y * slice_length;
        int length = (int)min((long long)slice_length, batch * out_height * out_width - begin);
        auto locate = [&](int step) {
            if (threadIdx.x >= DEPTH) return;
            int i = step * DEPTH + threadIdx.x;
            long long pixel = begin + i, line = pixel / max(1, out_width), image = line / max(1, out_height);
            int y = (int)(line % max(1, out_height)) * stride_down - top, x_there = (int)(pixel % max(1, out_width)) * stride_across - left;
            Place there = {((image * height + y) * width + x_there) * channels, y, x_there};
            places[step % tile.stages][threadIdx.x] = i < length ? there : Place{0, NOWHERE, NOWHERE};
        };
        const int from_left = threadIdx.x % LEFT_WORDS * LEFT, from_right = threadIdx.x % RIGHT_WORDS * RIGHT;
        int row = first_row + from_left, tap = row / depth;
        int down_by = tap / kernel_width * dilation_down, across_by = tap % kernel_width * dilation_across;
        const T* seen = x + ((long long)down_by * width + across_by) * channels + group * depth + row % depth;
        const T* of_grad = grad + begin * filters + group * columns + first_column + from_right;
        auto load = [&](int step, T* left_tile, T* right_tile) {
#pragma unroll 4
            for (int k = threadIdx.x / LEFT_WORDS; k < DEPTH; k += THREADS / LEFT_WORDS) {
                Place p = places[step % tile.stages][k];
                int y = p.y + down_by, x_there = p.x + across_by;
                bool inside = row < rows && y >= 0 && y < height && x_there >= 0 && x_there < width;
                copy<LEFT_WORD>(left_tile + k * Left::STRIDE + from_left, inside ? seen + p.at : x, inside);
            }
#pragma unroll 4
            for (int k = threadIdx.x / RIGHT_WORDS; k < DEPTH; k += THREADS / RIGHT_WORDS) {
                bool there = step * DEPTH + k < length && first_column + from_right < columns;
                const T* from = of_grad + (long long)(step * DEPTH + k) * filters;
                copy<RIGHT_WORD>(right_tile + k * Right::STRIDE + from_right, there ? from : grad, there);
            }
            if (step >= tile.stages - 1) locate(step + 1);  // instead of a step whose places none needs any more
        };
        float of_bias = 0;
        auto arrived = [&](const T* right_tile) {
            if (!with_bias || first_row || threadIdx.x >= tile.columns) return;
            for (int k = 0; k < DEPTH; k++) of_bias += float(right_tile[k * Right::STRIDE + threadIdx.x]);
        };
        Sums sums = {};
        for (int step = 0; step < tile.stages; step++) locate(step);
        __syncthreads();
        multiply_all<Left, Right>((T*)memory, (length + DEPTH - 1) / DEPTH, load, arrived, sums);
        partial += (long long)blockIdx.y * (rows + 1) * filters + group * columns + first_column;
        each_sum(sums, [&](int down, int across, float sum) {
            if (first_row + down < rows && first_column + across < columns) {
                partial[(long long)(first_row + down) * filters + across] = sum;
            }
        });
        if (with_bias && !first_row && threadIdx.x < tile.columns && first_column + threadIdx.x < columns) {
            partial[(long long)rows * filters + threadIdx.x] = of_bias;
        }
    }
}
