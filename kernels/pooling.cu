// Pooling of channels-last images, forward and transposed, without atomics: every thread owns one value of the output
// and gathers what belongs to it, in the order of the window. Neighbouring threads take neighbouring channels.
//
// Rows (image and height) lie along the grid's y, columns (width and channel) along x: no long division in a column.
#include "common.cuh"

#ifndef INDEX
#define INDEX unsigned char
#endif

#define FOR_EACH_ROW(row, rows) \
    for (long long row = (long long)blockIdx.y * blockDim.y + threadIdx.y; row < (rows); row += (long long)gridDim.y * blockDim.y)
#define FOR_EACH_COLUMN(column, columns) \
    for (long long column = (long long)blockIdx.x * blockDim.x + threadIdx.x; column < (columns); column += (long long)gridDim.x * blockDim.x)

// What a window sees along one axis: the inputs [first, last), of which the first is the window's `skipped`-th.
struct Span {
    int first, last, skipped;
    __device__ Span(int output, int length, int window, int stride, int before) {
        int start = output * stride - before;
        first = max(start, 0);
        last = min(start + window, length);
        skipped = first - start;
    }
};

// The windows that see one input, from the one in which it comes first to the one in which it comes last.
struct Holders {
    int first, last, position;  // windows first, first - 1, ..., last; in the first one the input is at `position`
    __device__ Holders(int input, int outputs, int window, int stride, int before) {
        int place = input + before;
        first = min(place / stride, outputs - 1);
        position = place - first * stride;
        last = place < window ? 0 : (place - window) / stride + 1;
    }
};

extern "C" __global__ void max_pool(
    const T* x, T* values, INDEX* indices, long long rows, int height, int width, int channels, int outputs_down,
    int outputs_across, int window_down, int window_across, int stride_down, int stride_across, int top, int left) {
    long long columns = (long long)outputs_across * channels;
    FOR_EACH_ROW(row, rows) {
        Span down((int)(row % outputs_down), height, window_down, stride_down, top);
        const T* image = x + row / outputs_down * height * width * channels;
        FOR_EACH_COLUMN(column, columns) {
            int channel = (int)(column % channels);
            Span across((int)(column / channels), width, window_across, stride_across, left);
            A largest = -infinity();
            int index = down.skipped * window_across + across.skipped;  // all may be -infinity
            for (int i = down.first; i < down.last; i++) {
                for (int j = across.first; j < across.last; j++) {
                    A value = A(image[((long long)i * width + j) * channels + channel]);
                    if (value > largest || (value != value && largest == largest)) {  // the first NaN stays
                        largest = value;
                        index = (i - down.first + down.skipped) * window_across + j - across.first + across.skipped;
                    }
                }
            }
            values[row * columns + column] = T(largest);
            indices[row * columns + column] = (INDEX)index;
        }
    }
}

// out[input] = sum of grad over the windows that chose it
extern "C" __global__ void max_pool_scatter(
    const T* grad, const INDEX* indices, T* out, long long rows, int height, int width, int channels, int outputs_down,
    int outputs_across, int window_down, int window_across, int stride_down, int stride_across, int top, int left) {
    long long columns = (long long)width * channels;
    FOR_EACH_ROW(row, rows) {
        Holders down((int)(row % height), outputs_down, window_down, stride_down, top);
        long long image = row / height * outputs_down;
        FOR_EACH_COLUMN(column, columns) {
            int channel = (int)(column % channels);
            Holders across((int)(column / channels), outputs_across, window_across, stride_across, left);
            A sum = 0;
            for (int o = down.first, i = down.position; o >= down.last; o--, i += stride_down) {
                for (int p = across.first, j = across.position; p >= across.last; p--, j += stride_across) {
                    long long at = ((image + o) * outputs_across + p) * channels + channel;
                    if (indices[at] == (INDEX)(i * window_across + j)) sum += A(grad[at]);
                }
            }
            out[row * columns + column] = T(sum);
        }
    }
}

extern "C" __global__ void max_pool_gather(
    const T* x, const INDEX* indices, T* out, long long rows, int height, int width, int channels, int outputs_down,
    int outputs_across, int window_down, int window_across, int stride_down, int stride_across, int top, int left) {
    long long columns = (long long)outputs_across * channels;
    FOR_EACH_ROW(row, rows) {
        int start_down = (int)(row % outputs_down) * stride_down - top;
        const T* image = x + row / outputs_down * height * width * channels;
        FOR_EACH_COLUMN(column, columns) {
            int index = (int)indices[row * columns + column];
            int i = start_down + index / window_across;
            int j = (int)(column / channels) * stride_across - left + index % window_across;
            bool inside = index < window_down * window_across && i >= 0 && i < height && j >= 0 && j < width;
            long long at = ((long long)i * width + j) * channels + column % channels;
            out[row * columns + column] = inside ? image[at] : T(0.0f);
        }
    }
}

extern "C" __global__ void average_pool(
    const T* x, T* out, long long rows, int height, int width, int channels, int outputs_down, int outputs_across,
    int window_down, int window_across, int stride_down, int stride_across, int top, int left) {
    long long columns = (long long)outputs_across * channels;
    FOR_EACH_ROW(row, rows) {
        Span down((int)(row % outputs_down), height, window_down, stride_down, top);
        const T* image = x + row / outputs_down * height * width * channels;
        FOR_EACH_COLUMN(column, columns) {
            int channel = (int)(column % channels);
            Span across((int)(column / channels), width, window_across, stride_across, left);
            A sum = 0;
            for (int i = down.first; i < down.last; i++) {
                for (int j = across.first; j < across.last; j++) {
                    sum += A(image[((long long)i * width + j) * channels + channel]);
                }
            }
            out[row * columns + column] = T(sum / A((down.last - down.first) * (across.last - across.first)));
        }
    }
}

extern "C" __global__ void average_pool_gradient(
    const T* grad, T* out, long long rows, int height, int width, int channels, int outputs_down, int outputs_across,
    int window_down, int window_across, int stride_down, int stride_across, int top, int left) {
    long long columns = (long long)width * channels;
    FOR_EACH_ROW(row, rows) {
        Holders down((int)(row % height), outputs_down, window_down, stride_down, top);
        long long image = row / height * outputs_down;
        FOR_EACH_COLUMN(column, columns) {
            int channel = (int)(column % channels);
            Holders across((int)(column / channels), outputs_across, window_across, stride_across, left);
            A sum = 0;
            for (int o = down.first; o >= down.last; o--) {
                Span seen_down(o, height, window_down, stride_down, top);
                for (int p = across.first; p >= across.last; p--) {
                    Span seen(p, width, window_across, stride_across, left);
                    A count = A((seen_down.last - seen_down.first) * (seen.last - seen.first));
                    sum += A(grad[((image + o) * outputs_across + p) * channels + channel]) / count;
                }
            }
            out[row * columns + column] = T(sum);
        }
    }
}
