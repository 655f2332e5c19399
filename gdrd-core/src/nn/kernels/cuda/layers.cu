// What convolutions and products leave to do, float32, one launch for each pass of a layer. NVRTC compiles this file for the GPU
// that it finds (`module.rs`). Maps are [batch, channels, plane]; every sum runs in an order that the sizes alone decide, and no
// two threads add to one number.

// Where value `i` of all maps of one channel lies, counted from the channel's first.
static __device__ unsigned long long place(unsigned i, unsigned channels, unsigned plane) {
    return (unsigned long long)(i / plane) * channels * plane + i % plane;
}

// The sums of two numbers over the threads of a block, whose size is a power of two from 32 on.
static __device__ void sums(double &a, double &b) {
    __shared__ double first[32];
    __shared__ double second[32];
    unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (int other = 16; other > 0; other /= 2) {
        a += __shfl_xor_sync(0xffffffffu, a, other);
        b += __shfl_xor_sync(0xffffffffu, b, other);
    }
    if (lane == 0) {
        first[warp] = a;
        second[warp] = b;
    }
    __syncthreads();
    bool exists = lane < blockDim.x / 32;
    a = exists ? first[lane] : 0.0;
    b = exists ? second[lane] : 0.0;
    for (int other = 16; other > 0; other /= 2) {
        a += __shfl_xor_sync(0xffffffffu, a, other);
        b += __shfl_xor_sync(0xffffffffu, b, other);
    }
    __syncthreads();
}

static __device__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

static __device__ float positive(float x) { return x > 0.0f ? x : 0.0f; }

// The gradient behind a ReLU that gave `result`, or behind nothing.
static __device__ float masked(const float *grad, const float *result, unsigned long long at) {
    return result && !(result[at] > 0.0f) ? 0.0f : grad[at];
}

// Bits of a bfloat16.
typedef unsigned short bfloat16;

static __device__ unsigned to_bfloat16(float x) {
    unsigned bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffu;
    return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}

// Four values, or one, that a thread takes at a time.
struct Four {
    float at[4];
    static const unsigned COUNT = 4;
    static __device__ Four load(const float *from) {
        float4 v = *(const float4 *)from;
        return {{v.x, v.y, v.z, v.w}};
    }
    __device__ void store(float *to) const { *(float4 *)to = make_float4(at[0], at[1], at[2], at[3]); }
};
struct One {
    float at[1];
    static const unsigned COUNT = 1;
    static __device__ One load(const float *from) { return {{*from}}; }
    __device__ void store(float *to) const { *to = at[0]; }
};

// 16 bytes of channels side by side: the rows of `tile` from `first` on, at one pixel.
#define SIDE 65
static __device__ void write(float *to, const float (*tile)[SIDE], unsigned first, unsigned p) {
    *(float4 *)to = make_float4(tile[first][p], tile[first + 1][p], tile[first + 2][p], tile[first + 3][p]);
}
static __device__ unsigned both(float low, float high) { return to_bfloat16(low) | to_bfloat16(high) << 16; }
static __device__ void write(bfloat16 *to, const float (*tile)[SIDE], unsigned first, unsigned p) {
    const float (*from)[SIDE] = tile + first;
    *(uint4 *)to = make_uint4(both(from[0][p], from[1][p]), both(from[2][p], from[3][p]), both(from[4][p], from[5][p]),
                              both(from[6][p], from[7][p]));
}
static __device__ void read(float4 v, float (*tile)[SIDE], unsigned first, unsigned p, const float *) {
    tile[first][p] = v.x;
    tile[first + 1][p] = v.y;
    tile[first + 2][p] = v.z;
    tile[first + 3][p] = v.w;
}
static __device__ void read(float4 v, float (*tile)[SIDE], unsigned first, unsigned p, const bfloat16 *) {
    float pairs[4] = {v.x, v.y, v.z, v.w};
    for (unsigned k = 0; k < 4; ++k) {
        tile[first + 2 * k][p] = __uint_as_float(__float_as_uint(pairs[k]) << 16);
        tile[first + 2 * k + 1][p] = __uint_as_float(__float_as_uint(pairs[k]) & 0xffff0000u);
    }
}

// A block of 256 threads takes 64 channels of 64 pixels, counted over all maps. Its part of the side that lies channel by
// channel, V::COUNT pixels of one map at a time, into the tile; zeros for what is not there.
template <class V>
static __device__ void load_planar(const float *x, float (*tile)[SIDE], unsigned pixels, unsigned channels, unsigned plane) {
    const unsigned across = 64 / V::COUNT, rows = 256 / across;
    unsigned p = threadIdx.x % across * V::COUNT, row = threadIdx.x / across, pixel = blockIdx.x * 64 + p;
    unsigned channel = blockIdx.y * 64 + row, map = pixel / plane;
    const float *from = x + ((unsigned long long)map * channels + channel) * plane + (pixel - map * plane);
    V values[64 / rows];
#pragma unroll
    for (unsigned k = 0; k < 64 / rows; ++k) {
        bool exists = pixel < pixels && channel + k * rows < channels;
        values[k] = exists ? V::load(from + (unsigned long long)k * rows * plane) : V();
    }
#pragma unroll
    for (unsigned k = 0; k < 64 / rows; ++k) {
        for (unsigned j = 0; j < V::COUNT; ++j) tile[row + k * rows][p + j] = values[k].at[j];
    }
}

// The way back.
template <class V>
static __device__ void store_planar(float *y, const float (*tile)[SIDE], unsigned pixels, unsigned channels, unsigned plane) {
    const unsigned across = 64 / V::COUNT, rows = 256 / across;
    unsigned p = threadIdx.x % across * V::COUNT, row = threadIdx.x / across, pixel = blockIdx.x * 64 + p;
    unsigned channel = blockIdx.y * 64 + row, map = pixel / plane;
    if (pixel >= pixels) return;
    float *to = y + ((unsigned long long)map * channels + channel) * plane + (pixel - map * plane);
#pragma unroll
    for (unsigned k = 0; k < 64 / rows; ++k) {
        if (channel + k * rows >= channels) continue;
        V value;
        for (unsigned j = 0; j < V::COUNT; ++j) value.at[j] = tile[row + k * rows][p + j];
        value.store(to + (unsigned long long)k * rows * plane);
    }
}

// Maps [.., channels, plane] to maps [.., plane, padded], in all `places` pixels, with zeros for what is not there: the channels
// from `channels` on, the pixels from `pixels` on. A row of `padded` is a multiple of 16 bytes.
template <class T>
static __device__ void pack(const float *x, T *y, unsigned pixels, unsigned places, unsigned channels, unsigned plane,
                            unsigned padded) {
    __shared__ float tile[64][SIDE];
    if (plane % 4 == 0 && (unsigned long long)x % 16 == 0) {
        load_planar<Four>(x, tile, pixels, channels, plane);
    } else {
        load_planar<One>(x, tile, pixels, channels, plane);
    }
    __syncthreads();
    const unsigned width = 16 / sizeof(T), across = 64 / width;
    unsigned c = threadIdx.x % across * width, channel = blockIdx.y * 64 + c;
    for (unsigned p = threadIdx.x / across; p < 64; p += 256 / across) {
        unsigned long long pixel = blockIdx.x * 64 + p;
        if (pixel < places && channel < padded) write(y + pixel * padded + channel, tile, c, p);
    }
}

// The way back: maps [.., plane, padded] to maps [.., channels, plane], `pixels` of them.
template <class T>
static __device__ void unpack(const T *x, float *y, unsigned pixels, unsigned channels, unsigned plane, unsigned padded) {
    __shared__ float tile[64][SIDE];
    const unsigned width = 16 / sizeof(T), across = 64 / width;
    unsigned c = threadIdx.x % across * width, channel = blockIdx.y * 64 + c, p = threadIdx.x / across;
    float4 values[across / 4] = {};
#pragma unroll
    for (unsigned k = 0; k < across / 4; ++k) {
        unsigned long long pixel = blockIdx.x * 64 + p + k * (256 / across);
        if (pixel < pixels && channel < padded) values[k] = *(const float4 *)(x + pixel * padded + channel);
    }
#pragma unroll
    for (unsigned k = 0; k < across / 4; ++k) read(values[k], tile, c, p + k * (256 / across), x);
    __syncthreads();
    if (plane % 4 == 0) {
        store_planar<Four>(y, tile, pixels, channels, plane);
    } else {
        store_planar<One>(y, tile, pixels, channels, plane);
    }
}

extern "C" __global__ void __launch_bounds__(256)
pack_float32(const float *x, float *y, unsigned pixels, unsigned places, unsigned channels, unsigned plane, unsigned padded) {
    pack(x, y, pixels, places, channels, plane, padded);
}

extern "C" __global__ void __launch_bounds__(256)
pack_bfloat16(const float *x, bfloat16 *y, unsigned pixels, unsigned places, unsigned channels, unsigned plane, unsigned padded) {
    pack(x, y, pixels, places, channels, plane, padded);
}

extern "C" __global__ void __launch_bounds__(256)
unpack_float32(const float *x, float *y, unsigned pixels, unsigned channels, unsigned plane, unsigned padded) {
    unpack(x, y, pixels, channels, plane, padded);
}

extern "C" __global__ void __launch_bounds__(256)
unpack_bfloat16(const bfloat16 *x, float *y, unsigned pixels, unsigned channels, unsigned plane, unsigned padded) {
    unpack(x, y, pixels, channels, plane, padded);
}

// What each output of a convolution is made of, tap by tap: maps [batch, height * width] of pixels of 16 bytes to
// [batch, out_height * out_width, taps], with zeros for what lies outside. A thread for each of `n` pixels that are written.
extern "C" __global__ void columns(const float4 *x, float4 *y, unsigned height, unsigned width, unsigned out_height,
                                   unsigned out_width, unsigned kernel_h, unsigned kernel_w, unsigned stride, unsigned padding,
                                   unsigned n) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned b = i % kernel_w, a = i / kernel_w % kernel_h, out = i / (kernel_w * kernel_h);
    unsigned column = out % out_width, row = out / out_width % out_height, map = out / (out_width * out_height);
    // What lies before the map wraps around to a large number.
    unsigned r = row * stride + a - padding, c = column * stride + b - padding;
    bool inside = r < height && c < width;
    y[i] = inside ? x[((unsigned long long)map * height + r) * width + c] : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
}

// Values that a thread adds in float32 before it goes on in float64.
#define RUN 32

// A convolution that keeps channels apart; a thread for each output.
extern "C" __global__ void depthwise(const float *x, const float *weight, float *y, unsigned channels, unsigned height,
                                     unsigned width, unsigned out_height, unsigned out_width, unsigned kernel_h, unsigned kernel_w,
                                     unsigned stride, unsigned padding, unsigned n) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned column = i % out_width, row = i / out_width % out_height, map = i / (out_width * out_height);
    const float *kernel = weight + map % channels * (kernel_h * kernel_w), *from = x + (unsigned long long)map * height * width;
    float sum = 0.0f;
    for (unsigned a = 0; a < kernel_h; ++a) {
        // What lies before the map wraps around to a large number.
        unsigned r = row * stride + a - padding;
        if (r >= height) continue;
        for (unsigned b = 0; b < kernel_w; ++b) {
            unsigned c = column * stride + b - padding;
            if (c < width) sum += kernel[a * kernel_w + b] * from[r * width + c];
        }
    }
    y[i] = sum;
}

// The gradient of its input; a thread for each value of it.
extern "C" __global__ void depthwise_input(const float *grad, const float *weight, float *y, unsigned channels, unsigned height,
                                           unsigned width, unsigned out_height, unsigned out_width, unsigned kernel_h,
                                           unsigned kernel_w, unsigned stride, unsigned padding, unsigned n) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned column = i % width, row = i / width % height, map = i / (width * height);
    const float *kernel = weight + map % channels * (kernel_h * kernel_w);
    const float *from = grad + (unsigned long long)map * out_height * out_width;
    float sum = 0.0f;
    for (unsigned a = 0; a < kernel_h; ++a) {
        // What lies before the map wraps around to a large number.
        unsigned r = row + padding - a, out_row = r / stride;
        if (out_row >= out_height || out_row * stride != r) continue;
        for (unsigned b = 0; b < kernel_w; ++b) {
            unsigned c = column + padding - b, out_column = c / stride;
            if (out_column < out_width && out_column * stride == c) sum += kernel[a * kernel_w + b] * from[out_row * out_width + out_column];
        }
    }
    y[i] = sum;
}

// The gradient of its weight; a block for each channel and two taps, whose threads go through all `n` outputs of the channel.
extern "C" __global__ void depthwise_weight(const float *x, const float *grad, float *y, unsigned channels, unsigned height,
                                            unsigned width, unsigned out_height, unsigned out_width, unsigned kernel_h,
                                            unsigned kernel_w, unsigned stride, unsigned padding, unsigned n) {
    unsigned channel = blockIdx.x, taps = kernel_h * kernel_w, tap = 2 * blockIdx.y, plane = out_height * out_width;
    unsigned a = tap / kernel_w, b = tap % kernel_w, next_a = (tap + 1) / kernel_w, next_b = (tap + 1) % kernel_w;
    double sum = 0.0, next = 0.0;
    for (unsigned i = threadIdx.x; i < n;) {
        float part = 0.0f, next_part = 0.0f;
        for (unsigned k = 0; k < RUN && i < n; ++k, i += blockDim.x) {
            unsigned map = i / plane, at = i - map * plane, row = at / out_width, column = at - row * out_width;
            unsigned long long all = (unsigned long long)map * channels + channel;
            const float *from = x + all * height * width;
            float value = grad[all * plane + at];
            unsigned r = row * stride + a - padding, c = column * stride + b - padding;
            if (r < height && c < width) part += value * from[r * width + c];
            r = row * stride + next_a - padding, c = column * stride + next_b - padding;
            if (r < height && c < width) next_part += value * from[r * width + c];
        }
        sum += part;
        next += next_part;
    }
    sums(sum, next);
    if (threadIdx.x != 0) return;
    y[channel * taps + tap] = sum;
    if (tap + 1 < taps) y[channel * taps + tap + 1] = next;
}

// All maps of one channel: where a piece of them lies, counted from the channel's first value.
template <class V> struct Channel {
    unsigned pieces, channels, plane, shift;
    bool shifts;
    __device__ Channel(unsigned batch, unsigned channels, unsigned plane)
        : pieces(batch * (plane / V::COUNT)), channels(channels), plane(plane), shift(__ffs(plane / V::COUNT) - 1),
          shifts((plane / V::COUNT & (plane / V::COUNT - 1)) == 0) {}
    // How often a thread goes on if it takes `count` pieces each time.
    __device__ unsigned turns(unsigned count) const {
        unsigned all = count * blockDim.x;
        return threadIdx.x < pieces ? (pieces - threadIdx.x + all - 1) / all : 0;
    }
    __device__ unsigned long long place(unsigned i) const {
        unsigned width = plane / V::COUNT, map = shifts ? i >> shift : i / width;
        return ((unsigned long long)map * channels * width + (i - map * width)) * V::COUNT;
    }
};

// Whether a piece of four values of all of them can be taken at once.
static __device__ bool wide(unsigned plane, const void *a, const void *b, const void *c, const void *d) {
    return plane % 4 == 0 && ((unsigned long long)a | (unsigned long long)b | (unsigned long long)c | (unsigned long long)d) % 16 == 0;
}

// What normalisation makes of a value; rounded twice, the same wherever it is computed.
static __device__ float normal(float x, float mean, float scale, float bias) { return __fmaf_rn(x - mean, scale, bias); }

template <class V>
static __device__ void batch_norm_of(const float *x, const float *gamma, const float *beta, const float *add, float *y,
                                     float *statistics, unsigned batch, unsigned channels, unsigned plane, double eps, int relu) {
    unsigned c = blockIdx.x, step = blockDim.x;
    unsigned long long start = (unsigned long long)c * plane;
    Channel<V> channel(batch, channels, plane);
    x += start;
    // Values are taken around one of them, so that a large mean costs no precision.
    float centre = x[0];
    double total = 0.0, squares = 0.0;
    for (unsigned i = threadIdx.x; i < channel.pieces; i += 4 * step) {
        V pieces[4];
        for (unsigned k = 0; k < 4; ++k) {
            if (i + k * step < channel.pieces) pieces[k] = V::load(x + channel.place(i + k * step));
        }
        float sum = 0.0f, square = 0.0f;
        for (unsigned k = 0; k < 4; ++k) {
            if (i + k * step >= channel.pieces) continue;
            for (unsigned j = 0; j < V::COUNT; ++j) {
                float value = pieces[k].at[j] - centre;
                sum += value;
                square += value * value;
            }
        }
        total += sum;
        squares += square;
    }
    sums(total, squares);
    double n = (double)batch * plane, shift = total / n, spread = squares / n - shift * shift;
    double variance = spread > 0.0 ? spread : 0.0;
    float mean = (float)(centre + shift), inverse = (float)(1.0 / sqrt(variance + eps));
    if (threadIdx.x == 0) {
        statistics[c] = mean;
        statistics[channels + c] = (float)variance;
        statistics[2 * channels + c] = inverse;
    }
    float scale = inverse * gamma[c], bias = beta[c];
    // Backwards: what was read last is in the cache.
    for (unsigned left = channel.turns(2); left-- > 0;) {
        unsigned i = threadIdx.x + left * 2 * step;
        V pieces[2], others[2];
        for (unsigned k = 0; k < 2; ++k) {
            if (i + k * step >= channel.pieces) continue;
            unsigned long long at = channel.place(i + k * step);
            pieces[k] = V::load(x + at);
            if (add) others[k] = V::load(add + start + at);
        }
        for (unsigned k = 0; k < 2; ++k) {
            if (i + k * step >= channel.pieces) continue;
            for (unsigned j = 0; j < V::COUNT; ++j) {
                float value = normal(pieces[k].at[j], mean, scale, bias);
                if (add) value += others[k].at[j];
                pieces[k].at[j] = relu ? positive(value) : value;
            }
            pieces[k].store(y + start + channel.place(i + k * step));
        }
    }
}

// A block for each channel: mean, biased variance and 1 / sqrt(variance + eps) into `statistics` [3, channels], and
// y = (x - mean) * inverse * gamma + beta, then + add where there is one, then the ReLU if it is asked for.
extern "C" __global__ void __launch_bounds__(1024)
batch_norm(const float *x, const float *gamma, const float *beta, const float *add, float *y, float *statistics,
           unsigned batch, unsigned channels, unsigned plane, double eps, int relu) {
    if (wide(plane, x, add, y, y)) {
        batch_norm_of<Four>(x, gamma, beta, add, y, statistics, batch, channels, plane, eps, relu);
    } else {
        batch_norm_of<One>(x, gamma, beta, add, y, statistics, batch, channels, plane, eps, relu);
    }
}

template <class V>
static __device__ void norm_gradients_of(const float *x, const float *grad, const float *result, const float *statistics,
                                         const float *gamma, const float *beta, float *for_x, float *for_add,
                                         float *for_parameters, unsigned batch, unsigned channels, unsigned plane) {
    unsigned c = blockIdx.x, step = blockDim.x;
    unsigned long long start = (unsigned long long)c * plane;
    Channel<V> channel(batch, channels, plane);
    float mean = statistics ? statistics[c] : 0.0f, inverse = statistics ? statistics[2 * channels + c] : 1.0f;
    float factor = inverse * gamma[c], bias = beta ? beta[c] : 0.0f;
    double total = 0.0, product = 0.0;
    for (unsigned i = threadIdx.x; i < channel.pieces; i += 2 * step) {
        V values[2], grads[2], results[2];
        for (unsigned k = 0; k < 2; ++k) {
            if (i + k * step >= channel.pieces) continue;
            unsigned long long at = start + channel.place(i + k * step);
            values[k] = V::load(x + at);
            grads[k] = V::load(grad + at);
            if (result) results[k] = V::load(result + at);
        }
        float sum = 0.0f, with_x = 0.0f;
        for (unsigned k = 0; k < 2; ++k) {
            if (i + k * step >= channel.pieces) continue;
            for (unsigned j = 0; j < V::COUNT; ++j) {
                float value = values[k].at[j], &g = grads[k].at[j];
                if (result && !(results[k].at[j] > 0.0f)) g = 0.0f;
                if (beta && !(normal(value, mean, factor, bias) > 0.0f)) g = 0.0f;
                sum += g;
                with_x += (value - mean) * g;
            }
            if (result) grads[k].store(for_add + start + channel.place(i + k * step));
        }
        total += sum;
        product += with_x;
    }
    sums(total, product);
    product *= inverse;
    if (threadIdx.x == 0) {
        for_parameters[c] = (float)product;
        for_parameters[channels + c] = (float)total;
    }
    // dx = gamma inverse (g - mean(g) - normal mean(g normal)); what is behind g comes from the statistics.
    double n = (double)batch * plane;
    float level = statistics ? (float)(total / n) : 0.0f;
    float slope = statistics ? (float)(product / n) * inverse : 0.0f;
    // A thread finds the gradient behind the ReLU where it wrote it. Backwards: what was read last is in the cache.
    const float *behind = result ? for_add : grad;
    for (unsigned left = channel.turns(2); left-- > 0;) {
        unsigned i = threadIdx.x + left * 2 * step;
        V values[2], grads[2];
        for (unsigned k = 0; k < 2; ++k) {
            if (i + k * step >= channel.pieces) continue;
            unsigned long long at = start + channel.place(i + k * step);
            values[k] = V::load(x + at);
            grads[k] = V::load(behind + at);
        }
        for (unsigned k = 0; k < 2; ++k) {
            if (i + k * step >= channel.pieces) continue;
            for (unsigned j = 0; j < V::COUNT; ++j) {
                float &value = values[k].at[j], g = grads[k].at[j];
                if (beta && !(normal(value, mean, factor, bias) > 0.0f)) g = 0.0f;
                value = factor * ((g - level) - (value - mean) * slope);
            }
            values[k].store(for_x + start + channel.place(i + k * step));
        }
    }
}

// A block for each channel: the gradients of `batch_norm`, or of `x * gamma + beta` where `statistics` is null. Behind a ReLU
// stands `result`, what it gave, if there was an addition, whose gradient `for_add` takes, and `beta` if there was none: the sign
// follows from x then. Both are null without a ReLU. `for_parameters` [2, channels] takes the gradients of gamma and beta.
extern "C" __global__ void __launch_bounds__(1024)
norm_gradients(const float *x, const float *grad, const float *result, const float *statistics, const float *gamma,
               const float *beta, float *for_x, float *for_add, float *for_parameters, unsigned batch, unsigned channels,
               unsigned plane) {
    if (wide(plane, x, grad, result, for_x) && wide(plane, for_add, x, x, x)) {
        norm_gradients_of<Four>(x, grad, result, statistics, gamma, beta, for_x, for_add, for_parameters, batch, channels, plane);
    } else {
        norm_gradients_of<One>(x, grad, result, statistics, gamma, beta, for_x, for_add, for_parameters, batch, channels, plane);
    }
}

// activation(x * scale + shift + add); scale, shift and add may be null. Activations: 0 none, 1 ReLU, 2 ReLU6, 3 PReLU.
extern "C" __global__ void
epilogue(const float *x, const float *scale, const float *shift, const float *add, const float *slope, float *y, unsigned channels,
     unsigned plane, unsigned n, int activation) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    unsigned c = i / plane % channels;
    float value = x[i];
    if (scale) value *= scale[c];
    if (shift) value += shift[c];
    if (add) value += add[i];
    if (activation == 1) value = positive(value);
    if (activation == 2) value = fminf(positive(value), 6.0f);
    if (activation == 3) value = value > 0.0f ? value : slope[c] * value;
    y[i] = value;
}

// A block for each channel: the gradients of the PReLU.
extern "C" __global__ void __launch_bounds__(1024)
prelu_gradients(const float *x, const float *grad, const float *slope, float *for_x, float *for_slope, unsigned batch,
                unsigned channels, unsigned plane) {
    unsigned c = blockIdx.x, n = batch * plane;
    unsigned long long start = (unsigned long long)c * plane;
    float factor = slope[c];
    double total = 0.0, unused = 0.0;
    for (unsigned i = threadIdx.x; i < n;) {
        float sum = 0.0f;
        for (unsigned k = 0; k < RUN && i < n; ++k, i += blockDim.x) {
            unsigned long long at = start + place(i, channels, plane);
            float value = x[at], g = grad[at];
            for_x[at] = value > 0.0f ? g : factor * g;
            sum += fminf(value, 0.0f) * g;
        }
        total += sum;
    }
    sums(total, unused);
    if (threadIdx.x == 0) for_slope[c] = (float)total;
}

// max(a + b, 0).
extern "C" __global__ void add_relu(const float *a, const float *b, float *y, unsigned n) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = positive(a[i] + b[i]);
}

// The gradient behind a ReLU that gave `result`.
extern "C" __global__ void mask(const float *grad, const float *result, float *out, unsigned n) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = masked(grad, result, i);
}

// The gradient behind a ReLU6 that gave `result`.
extern "C" __global__ void mask6(const float *grad, const float *result, float *out, unsigned n) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = result[i] < 6.0f ? masked(grad, result, i) : 0.0f;
}

// x * sigmoid(x).
extern "C" __global__ void silu(const float *x, float *y, unsigned n) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = x[i] * sigmoid(x[i]);
}

extern "C" __global__ void silu_gradient(const float *x, const float *grad, float *out, unsigned n) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float s = sigmoid(x[i]);
    out[i] = grad[i] * s * (1.0f + x[i] * (1.0f - s));
}

// A block for each map: its mean.
extern "C" __global__ void __launch_bounds__(1024) mean_of_maps(const float *x, float *y, unsigned plane) {
    unsigned long long start = (unsigned long long)blockIdx.x * plane;
    double total = 0.0, unused = 0.0;
    for (unsigned i = threadIdx.x; i < plane; i += blockDim.x) total += x[start + i];
    sums(total, unused);
    if (threadIdx.x == 0) y[blockIdx.x] = (float)(total / plane);
}

// The gradient of the mean of each map.
extern "C" __global__ void mean_of_maps_gradient(const float *grad, float *out, unsigned plane, unsigned n) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = grad[i / plane] / plane;
}

// A block for each group of each sample: its values to zero mean and unit variance, * scale + shift, then the SiLU if it is
// asked for. `row` is the distance of two samples in `scale` and `shift`: the number of channels, or zero.
extern "C" __global__ void __launch_bounds__(1024)
group_norm(const float *x, const float *scale, const float *shift, float *y, unsigned channels, unsigned groups, unsigned plane,
           unsigned row, double eps, int with_silu) {
    unsigned members = channels / groups, n = members * plane, sample = blockIdx.x / groups;
    unsigned first = blockIdx.x % groups * members;
    unsigned long long start = (unsigned long long)blockIdx.x * n;
    float centre = x[start];
    double total = 0.0, squares = 0.0;
    for (unsigned i = threadIdx.x; i < n;) {
        float sum = 0.0f, square = 0.0f;
        for (unsigned k = 0; k < RUN && i < n; ++k, i += blockDim.x) {
            float value = x[start + i] - centre;
            sum += value;
            square += value * value;
        }
        total += sum;
        squares += square;
    }
    sums(total, squares);
    double moved = total / n, spread = squares / n - moved * moved, variance = spread > 0.0 ? spread : 0.0;
    float mean = (float)(centre + moved), inverse = (float)(1.0 / sqrt(variance + eps));
    for (unsigned i = threadIdx.x; i < n; i += blockDim.x) {
        unsigned at = sample * row + first + i / plane;
        float value = (x[start + i] - mean) * (inverse * scale[at]) + shift[at];
        y[start + i] = with_silu ? value * sigmoid(value) : value;
    }
}

// running = keep * running + take * batch.
extern "C" __global__ void move_average(float *running, const float *batch, float keep, float take, unsigned n) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) running[i] = keep * running[i] + take * batch[i];
}

// A part of the sum of squares for each block.
extern "C" __global__ void __launch_bounds__(1024) squares(const float *x, float *parts, unsigned n) {
    double total = 0.0, unused = 0.0;
    unsigned step = gridDim.x * blockDim.x;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) total += x[i] * x[i];
    sums(total, unused);
    if (threadIdx.x == 0) parts[blockIdx.x] = (float)total;
}

// A block for each row: its sum.
extern "C" __global__ void __launch_bounds__(1024) sum_of_rows(const float *x, float *y, unsigned width) {
    double total = 0.0, unused = 0.0;
    for (unsigned i = threadIdx.x; i < width; i += blockDim.x) total += x[(unsigned long long)blockIdx.x * width + i];
    sums(total, unused);
    if (threadIdx.x == 0) y[blockIdx.x] = (float)total;
}

// Stochastic gradient descent as `trainer::Sgd` says it; `velocity` is null without momentum.
extern "C" __global__ void
sgd(float *weight, float *velocity, const float *gradient, float momentum, float decay, float rate, int nesterov, unsigned n) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float w = weight[i], g = gradient[i] + decay * w, v = momentum * velocity[i] + g;
    velocity[i] = v;
    weight[i] = w - rate * (nesterov ? g + momentum * v : v);
}
