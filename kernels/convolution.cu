// Convolution as a matrix product whose left factor is gathered from the image, never stored: tiles of 64 x 64 results,
// 4 x 4 a thread, fed through shared memory while the next step's values travel to registers.
//
// Forward and data gradient are one gather; weights are summed over slices of the pixels and then over the slices, in
// order. With few filters a group, tiles would be mostly empty: the "direct" kernels have one thread a result.
#ifndef ACTIVATION
#define ACTIVATION linear
#endif
#include "convolution.cuh"

constexpr int SIDE = 64, DEPTH = 16, OWN = 4;  // of a tile; results of a thread each way
constexpr int THREADS = SIDE / OWN * (SIDE / OWN);
constexpr int LOADS = SIDE * DEPTH / THREADS;  // of each factor by a thread in a step

struct alignas(OWN * sizeof(A)) Quad {
    A at[OWN];
};
struct Tile {
    Quad rows[DEPTH][SIDE / OWN + 1];  // the odd length spreads the writes over the banks
    __device__ A& operator()(int depth, int i) { return rows[depth][i / OWN].at[i % OWN]; }
};

__device__ inline void multiply(const Tile& left, const Tile& right, A (&sum)[OWN][OWN]) {
#pragma unroll
    for (int k = 0; k < DEPTH; k++) {
        Quad a = left.rows[k][threadIdx.x / (SIDE / OWN)], b = right.rows[k][threadIdx.x % (SIDE / OWN)];
#pragma unroll
        for (int i = 0; i < OWN; i++) {
#pragma unroll
            for (int j = 0; j < OWN; j++) sum[i][j] += a.at[i] * b.at[j];
        }
    }
}

// sum[pixel, column] for a tile: source (batch, length down, length across, groups * depth) times the kernel, whose
// columns are filters, or channels if BACK. `filters` are all groups', `columns` one group's. If POOLED, four rows are
// one window of the results, of which `down` and `across` count the windows.
template <bool BACK, bool POOLED = false>
__device__ void gather(
    const T* source, const T* kernel, const Axis& down, const Axis& across, long long pixels, int depth, int columns,
    int groups, int group, int filters, int kernel_width, long long first_row, int first_column, A (&sum)[OWN][OWN]) {
    __shared__ Tile left, right;
    const int lane = threadIdx.x % DEPTH, row = threadIdx.x / DEPTH;
    const int total = down.taps * across.taps * depth;
    const int per_group = BACK ? depth : columns;  // filters of a group
    long long image[LOADS];
    int y0[LOADS], x0[LOADS];
    for (int i = 0; i < LOADS; i++) {
        long long pixel = first_row + row + i * (SIDE / LOADS);
        bool exists = pixel < pixels;
        if (POOLED) pixel /= WINDOW;
        long long line = exists ? pixel / across.results : 0;
        image[i] = line / down.results * down.length * across.length;
        int y = (int)(line % down.results), x = (int)(pixel % across.results);
        if (POOLED) y = 2 * y + row / 2 % 2, x = 2 * x + row % 2;
        y0[i] = exists ? y * down.scale + down.offset : NOWHERE;
        x0[i] = exists ? x * across.scale + across.offset : NOWHERE;
    }
    Walk walk(depth, across.taps, lane);
    A from_source[LOADS], from_kernel[LOADS];
    auto load = [&](int start) {
        bool within = start + lane < total;
        int down_by = walk.down * down.step, across_by = walk.across * across.step;
        int tap = (down.first + walk.down * down.every) * kernel_width + across.first + walk.across * across.every;
#pragma unroll
        for (int i = 0; i < LOADS; i++) {
            int y = y0[i] + down_by, x = x0[i] + across_by;
            bool inside = within && y >= 0 && y < down.length && x >= 0 && x < across.length;
            from_source[i] = inside ? A(source[(image[i] + y * across.length + x) * groups * depth + group * depth + walk.channel]) : A(0);
            if (BACK) {  // filters follow each other in memory
                int column = first_column + row + i * (SIDE / LOADS);
                from_kernel[i] = within && column < columns
                    ? A(kernel[((long long)tap * columns + column) * filters + group * per_group + walk.channel]) : A(0);
            } else {
                int k = start + threadIdx.x / SIDE + i * (DEPTH / LOADS), column = first_column + threadIdx.x % SIDE;
                from_kernel[i] = k < total && column < columns
                    ? A(kernel[(long long)k * filters + group * per_group + column]) : A(0);
            }
        }
    };
    load(0);
    for (int start = 0; start < total; start += DEPTH) {
#pragma unroll
        for (int i = 0; i < LOADS; i++) {
            left(lane, row + i * (SIDE / LOADS)) = from_source[i];
            if (BACK) right(lane, row + i * (SIDE / LOADS)) = from_kernel[i];
            else right(threadIdx.x / SIDE + i * (DEPTH / LOADS), threadIdx.x % SIDE) = from_kernel[i];
        }
        __syncthreads();
        walk.move(DEPTH);
        if (start + DEPTH < total) load(start + DEPTH);
        multiply(left, right, sum);
        __syncthreads();
    }
}

// One sum of the same kind: `column` counts all groups', (y, x) is a result along the axes.
template <bool BACK>
__device__ A gather_one(
    const T* source, const T* kernel, const Axis& down, const Axis& across, long long image, int y, int x, int depth,
    int columns, int groups, int column, int filters, int kernel_width) {
    int group = column / columns, own = column % columns;
    A sum = 0;
    for (int i = 0; i < down.taps; i++) {
        int line = y * down.scale + i * down.step + down.offset;
        if (line < 0 || line >= down.length) continue;
        for (int j = 0; j < across.taps; j++) {
            int place = x * across.scale + j * across.step + across.offset;
            if (place < 0 || place >= across.length) continue;
            const T* seen = source + ((image * down.length + line) * across.length + place) * groups * depth + group * depth;
            long long tap = (down.first + i * down.every) * kernel_width + across.first + j * across.every;
            const T* weights = kernel + (BACK ? (tap * columns + own) * filters + group * depth : tap * depth * filters + column);
            for (int c = 0; c < depth; c++) sum += A(seen[c]) * A(weights[BACK ? c : (long long)c * filters]);
        }
    }
    return sum;
}

// output = activation(z + bias), where z is the convolution; z + bias is kept unless `z` is null.
extern "C" __global__ void __launch_bounds__(256) convolution_forward(
    const T* x, const T* kernel, const T* bias, T* output, T* z, long long batch, int height, int width, int channels,
    int out_height, int out_width, int filters, int groups, int kernel_height, int kernel_width, int stride_down,
    int stride_across, int top, int left, int dilation_down, int dilation_across) {
    Axis down = forward_axis(height, out_height, kernel_height, stride_down, top, dilation_down);
    Axis across = forward_axis(width, out_width, kernel_width, stride_across, left, dilation_across);
    int columns = filters / groups, across_tiles = (columns + SIDE - 1) / SIDE;
    int group = blockIdx.x / across_tiles % groups, first_column = blockIdx.x % across_tiles * SIDE;
    long long first_row = (long long)(blockIdx.x / across_tiles / groups) * SIDE, pixels = batch * out_height * out_width;
    A sum[OWN][OWN] = {};
    gather<false>(x, kernel, down, across, pixels, channels / groups, columns, groups, group, filters, kernel_width,
                  first_row, first_column, sum);
    for (int i = 0; i < OWN; i++) {
        long long pixel = first_row + threadIdx.x / (SIDE / OWN) * OWN + i;
        for (int j = 0; j < OWN; j++) {
            int column = first_column + threadIdx.x % (SIDE / OWN) * OWN + j, filter = group * columns + column;
            if (pixel < pixels && column < columns) finish(sum[i][j], bias, output, z, pixel * filters + filter, filter);
        }
    }
}

// The same, then of each window of 2 x 2 the largest: its value, its place in the window, and, unless `z` is null, its z.
// The pixels of a thread are one window.
extern "C" __global__ void __launch_bounds__(256) convolution_pooled(
    const T* x, const T* kernel, const T* bias, T* output, T* z, unsigned char* indices, long long batch, int height,
    int width, int channels, int windows_down, int windows_across, int filters, int groups, int kernel_height,
    int kernel_width, int stride_down, int stride_across, int top, int left, int dilation_down, int dilation_across) {
    static_assert(OWN == WINDOW, "a thread has one window");
    Axis down = forward_axis(height, windows_down, kernel_height, stride_down, top, dilation_down);
    Axis across = forward_axis(width, windows_across, kernel_width, stride_across, left, dilation_across);
    int columns = filters / groups, across_tiles = (columns + SIDE - 1) / SIDE;
    int group = blockIdx.x / across_tiles % groups, first_column = blockIdx.x % across_tiles * SIDE;
    long long first_row = (long long)(blockIdx.x / across_tiles / groups) * SIDE;
    long long windows = batch * windows_down * windows_across;
    A sum[OWN][OWN] = {};
    gather<false, true>(x, kernel, down, across, windows * WINDOW, channels / groups, columns, groups, group, filters,
                        kernel_width, first_row, first_column, sum);
    long long window = first_row / WINDOW + threadIdx.x / (SIDE / OWN);
    if (window >= windows) return;
    for (int j = 0; j < OWN; j++) {
        int column = first_column + threadIdx.x % (SIDE / OWN) * OWN + j, filter = group * columns + column, best = 0;
        if (column >= columns) break;
        A largest = contender(sum[0][j], bias, filter), of_largest = sum[0][j];
#pragma unroll
        for (int i = 1; i < WINDOW; i++) {
            A value = contender(sum[i][j], bias, filter);
            if (beats(value, largest)) largest = value, of_largest = sum[i][j], best = i;
        }
        long long at = window * filters + filter;
        output[at] = T(largest);
        indices[at] = (unsigned char)best;
        if (z) z[at] = T(of_largest);
    }
}

// Four blocks a multiprocessor: left alone, the compiler aims at more and spills registers.
extern "C" __global__ void __launch_bounds__(256, 4) convolution_forward_direct(
    const T* x, const T* kernel, const T* bias, T* output, T* z, long long batch, int height, int width, int channels,
    int out_height, int out_width, int filters, int groups, int kernel_height, int kernel_width, int stride_down,
    int stride_across, int top, int left, int dilation_down, int dilation_across) {
    Axis down = forward_axis(height, out_height, kernel_height, stride_down, top, dilation_down);
    Axis across = forward_axis(width, out_width, kernel_width, stride_across, left, dilation_across);
    int i = blockIdx.y * blockDim.x + threadIdx.x;
    if (i >= out_width * filters) return;
    A sum = gather_one<false>(x, kernel, down, across, blockIdx.x / out_height, blockIdx.x % out_height, i / filters,
                              channels / groups, filters / groups, groups, i % filters, filters, kernel_width);
    finish(sum, bias, output, z, (long long)blockIdx.x * out_width * filters + i, i % filters);
}

// Tiles of pixels that lie a stride apart, so that all see the same taps: none is multiplied by zeros.
extern "C" __global__ void __launch_bounds__(256) convolution_data(
    const T* grad, const T* kernel, T* grad_x, long long batch, int height, int width, int channels, int out_height,
    int out_width, int filters, int groups, int kernel_height, int kernel_width, int stride_down, int stride_across,
    int top, int left, int dilation_down, int dilation_across) {
    int columns = channels / groups, across_tiles = (columns + SIDE - 1) / SIDE, rest = blockIdx.x / across_tiles;
    int first_column = blockIdx.x % across_tiles * SIDE, group = rest % groups, phase = rest / groups % (stride_down * stride_across);
    Axis down = backward_axis(height, out_height, kernel_height, stride_down, top, dilation_down, phase / stride_across);
    Axis across = backward_axis(width, out_width, kernel_width, stride_across, left, dilation_across, phase % stride_across);
    long long first_row = (long long)(rest / groups / (stride_down * stride_across)) * SIDE;
    long long pixels = batch * down.results * across.results;
    if (first_row >= pixels) return;
    A sum[OWN][OWN] = {};
    gather<true>(grad, kernel, down, across, pixels, filters / groups, columns, groups, group, filters, kernel_width,
                 first_row, first_column, sum);
    for (int i = 0; i < OWN; i++) {
        long long pixel = first_row + threadIdx.x / (SIDE / OWN) * OWN + i;
        if (pixel >= pixels) break;
        long long line = pixel / across.results, image = line / down.results;
        long long y = down.start + line % down.results * down.pace, x = across.start + pixel % across.results * across.pace;
        for (int j = 0; j < OWN; j++) {
            int column = first_column + threadIdx.x % (SIDE / OWN) * OWN + j;
            if (column < columns) grad_x[((image * height + y) * width + x) * channels + group * columns + column] = T(sum[i][j]);
        }
    }
}

extern "C" __global__ void __launch_bounds__(256, 4) convolution_data_direct(
    const T* grad, const T* kernel, T* grad_x, long long batch, int height, int width, int channels, int out_height,
    int out_width, int filters, int groups, int kernel_height, int kernel_width, int stride_down, int stride_across,
    int top, int left, int dilation_down, int dilation_across) {
    int i = blockIdx.y * blockDim.x + threadIdx.x, y = blockIdx.x % height, x = i / channels;
    if (x >= width) return;
    Axis down = backward_axis(height, out_height, kernel_height, stride_down, top, dilation_down, y % stride_down);
    Axis across = backward_axis(width, out_width, kernel_width, stride_across, left, dilation_across, x % stride_across);
    A sum = gather_one<true>(grad, kernel, down, across, blockIdx.x / height, y / stride_down, x / stride_across,
                             filters / groups, channels / groups, groups, i % channels, filters, kernel_width);
    grad_x[(long long)blockIdx.x * width * channels + i] = T(sum);
}

// The sums of one slice of the pixels: partial[slice] is (rows + 1, filters), a row for each value of a window, and in
// the last one the bias's, if `with_bias`.
extern "C" __global__ void __launch_bounds__(256) convolution_weights(
    const T* x, const T* grad, A* partial, int rows, bool with_bias, int slice_length, long long batch, int height,
    int width, int channels, int out_height, int out_width, int filters, int groups, int kernel_height,
    int kernel_width, int stride_down, int stride_across, int top, int left, int dilation_down, int dilation_across) {
    __shared__ Tile left_tile, right_tile;
    __shared__ int in_batch[DEPTH], in_y[DEPTH], in_x[DEPTH];  // of a step's pixels
    int columns = filters / groups, depth = channels / groups, across_tiles = (columns + SIDE - 1) / SIDE;
    int group = blockIdx.x / across_tiles % groups, first_column = blockIdx.x % across_tiles * SIDE;
    int first_row = blockIdx.x / across_tiles / groups * SIDE;
    long long begin = (long long)blockIdx.y * slice_length, area = max(1, out_height * out_width);
    int length = (int)min((long long)slice_length, batch * out_height * out_width - begin);
    long long first_image = begin / area;
    unsigned offset = (unsigned)(begin % area);

    const int lane = threadIdx.x % SIDE, step = threadIdx.x / SIDE;
    int row = first_row + lane, tap = row / depth, channel = group * depth + row % depth;
    int down_by = tap / kernel_width * dilation_down - top, across_by = tap % kernel_width * dilation_across - left;
    bool seen = row < rows, exists = first_column + lane < columns;
    auto locate = [&](int start) {
        if (threadIdx.x >= DEPTH) return;
        unsigned pixel = offset + start + threadIdx.x, line = pixel / out_width;
        in_batch[threadIdx.x] = pixel / (unsigned)area;
        in_y[threadIdx.x] = start + (int)threadIdx.x < length ? (int)(line % out_height) * stride_down : NOWHERE;
        in_x[threadIdx.x] = pixel % out_width * stride_across;
    };
    A from_x[LOADS], from_grad[LOADS], of_bias = 0;
    auto load = [&](int start) {
#pragma unroll
        for (int i = 0; i < LOADS; i++) {
            int k = step + i * (DEPTH / LOADS), y_there = in_y[k] + down_by, x_there = in_x[k] + across_by;
            bool inside = seen && y_there >= 0 && y_there < height && x_there >= 0 && x_there < width;
            long long pixel = ((first_image + in_batch[k]) * height + y_there) * width + x_there;
            from_x[i] = inside ? A(x[pixel * channels + channel]) : A(0);
            from_grad[i] = exists && start + k < length
                ? A(grad[(begin + start + k) * filters + group * columns + first_column + lane]) : A(0);
            of_bias += from_grad[i];
        }
    };
    A sum[OWN][OWN] = {};
    if (length > 0) {
        locate(0);
        __syncthreads();
        load(0);
        __syncthreads();
    }
    for (int start = 0; start < length; start += DEPTH) {
#pragma unroll
        for (int i = 0; i < LOADS; i++) {
            left_tile(step + i * (DEPTH / LOADS), lane) = from_x[i];
            right_tile(step + i * (DEPTH / LOADS), lane) = from_grad[i];
        }
        locate(start + DEPTH);
        __syncthreads();
        if (start + DEPTH < length) load(start + DEPTH);
        multiply(left_tile, right_tile, sum);
        __syncthreads();
    }
    partial += (long long)blockIdx.y * (rows + 1) * filters + group * columns;
    for (int i = 0; i < OWN; i++) {
        int own = first_row + threadIdx.x / (SIDE / OWN) * OWN + i;
        for (int j = 0; j < OWN; j++) {
            int column = first_column + threadIdx.x % (SIDE / OWN) * OWN + j;
            if (own < rows && column < columns) partial[(long long)own * filters + column] = sum[i][j];
        }
    }
    if (!with_bias || first_row) return;
    left_tile(step, lane) = of_bias;
    __syncthreads();
    if (step || !exists) return;
    for (int i = 1; i < THREADS / SIDE; i++) of_bias += left_tile(i, lane);
    partial[(long long)rows * filters + first_column + lane] = of_bias;
}

// Of each result in (rows + 1, filters), 8 threads sum every eighth pixel.
extern "C" __global__ void __launch_bounds__(256) convolution_weights_direct(
    const T* x, const T* grad, A* partial, int rows, bool with_bias, int slice_length, long long batch, int height,
    int width, int channels, int out_height, int out_width, int filters, int groups, int kernel_height,
    int kernel_width, int stride_down, int stride_across, int top, int left, int dilation_down, int dilation_across) {
    __shared__ A sums[8][32];
    int lane = threadIdx.x % 32, part = threadIdx.x / 32, filter = blockIdx.y * 32 + lane, row = blockIdx.x;
    int depth = channels / groups, tap = row / depth, channel = filter / (filters / groups) * depth + row % depth;
    int down_by = tap / kernel_width * dilation_down - top, across_by = tap % kernel_width * dilation_across - left;
    long long begin = (long long)blockIdx.z * slice_length;
    int length = (int)min((long long)slice_length, batch * out_height * out_width - begin);
    A sum = 0;
    if (filter < filters && part < length && (row < rows || with_bias)) {
        long long pixel = begin + part, image = pixel / out_width / out_height;
        int y = (int)(pixel / out_width % out_height), x_out = (int)(pixel % out_width);
        for (int i = part; i < length; i += 8, pixel += 8) {
            int y_there = y * stride_down + down_by, x_there = x_out * stride_across + across_by;
            if (row == rows) {
                sum += A(grad[pixel * filters + filter]);
            } else if (y_there >= 0 && y_there < height && x_there >= 0 && x_there < width) {
                sum += A(x[((image * height + y_there) * width + x_there) * channels + channel]) * A(grad[pixel * filters + filter]);
            }
            for (x_out += 8; x_out >= out_width; x_out -= out_width) {
                if (++y == out_height) y = 0, image++;
            }
        }
    }
    sums[part][lane] = sum;
    __syncthreads();
    if (part || filter >= filters) return;
    for (int i = 1; i < 8; i++) sum += sums[i][lane];
    partial[((long long)blockIdx.z * (rows + 1) + row) * filters + filter] = sum;
}

// The second pass: the slices' sums, in order.
extern "C" __global__ void convolution_weights_sum(
    const A* partial, T* grad_kernel, T* grad_bias, int slices, int rows, int filters) {
    long long size = (long long)(rows + 1) * filters, of_kernel = (long long)rows * filters;
    FOR_EACH(i, size) {
        if (i >= of_kernel && !grad_bias) return;
        A sum = 0;
        for (int slice = 0; slice < slices; slice++) sum += partial[slice * size + i];
        if (i < of_kernel) grad_kernel[i] = T(sum);
        else grad_bias[i - of_kernel] = T(sum);
    }
}
