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

// Two values side by side.
static __device__ void write(float *to, float a, float b) { *(float2 *)to = make_float2(a, b); }
static __device__ void write(bfloat16 *to, float a, float b) { *(unsigned *)to = to_bfloat16(a) | to_bfloat16(b) << 16; }
static __device__ void read(const float *from, float &a, float &b) {
    float2 both = *(const float2 *)from;
    a = both.x;
    b = both.y;
}
static __device__ void read(const bfloat16 *from, float &a, float &b) {
    unsigned both = *(const unsigned *)from;
    a = __uint_as_float(both << 16);
    b = __uint_as_float(both & 0xffff0000u);
}

// Maps [.., channels, plane] to maps [.., plane, padded], padded even, with zeros for what is not there: the channels from
// `channels` on, the maps from `there` on. A block of 256 threads for 32 pixels of 64 channels.
template <class T>
static __device__ void pack(const float *x, T *y, unsigned there, unsigned channels, unsigned plane, unsigned padded) {
    __shared__ float tile[64][33];
    unsigned tiles = (plane + 31) / 32, image = blockIdx.x / tiles;
    unsigned pixels = blockIdx.x % tiles * 32, first = blockIdx.y * 64, lane = threadIdx.x % 32, row = threadIdx.x / 32;
    for (unsigned c = row; c < 64; c += 8) {
        unsigned channel = first + c, pixel = pixels + lane;
        bool exists = image < there && channel < channels && pixel < plane;
        tile[c][lane] = exists ? x[((unsigned long long)image * channels + channel) * plane + pixel] : 0.0f;
    }
    __syncthreads();
    unsigned channel = first + 2 * lane;
    for (unsigned p = row; p < 32 && pixels + p < plane; p += 8) {
        if (channel >= padded) continue;
        write(y + ((unsigned long long)image * plane + pixels + p) * padded + channel, tile[2 * lane][p], tile[2 * lane + 1][p]);
    }
}

// The way back: maps [.., plane, padded] to maps [.., channels, plane].
template <class T>
static __device__ void unpack(const T *x, float *y, unsigned channels, unsigned plane, unsigned padded) {
    __shared__ float tile[64][33];
    unsigned tiles = (plane + 31) / 32, image = blockIdx.x / tiles;
    unsigned pixels = blockIdx.x % tiles * 32, first = blockIdx.y * 64, lane = threadIdx.x % 32, row = threadIdx.x / 32;
    unsigned channel = first + 2 * lane;
    for (unsigned p = row; p < 32 && pixels + p < plane; p += 8) {
        if (channel >= padded) continue;
        read(x + ((unsigned long long)image * plane + pixels + p) * padded + channel, tile[2 * lane][p], tile[2 * lane + 1][p]);
    }
    __syncthreads();
    for (unsigned c = row; c < 64; c += 8) {
        if (first + c >= channels || pixels + lane >= plane) continue;
        y[((unsigned long long)image * channels + first + c) * plane + pixels + lane] = tile[c][lane];
    }
}

extern "C" __global__ void __launch_bounds__(256)
pack_float32(const float *x, float *y, unsigned there, unsigned channels, unsigned plane, unsigned padded) {
    pack(x, y, there, channels, plane, padded);
}

extern "C" __global__ void __launch_bounds__(256)
pack_bfloat16(const float *x, bfloat16 *y, unsigned there, unsigned channels, unsigned plane, unsigned padded) {
    pack(x, y, there, channels, plane, padded);
}

extern "C" __global__ void __launch_bounds__(256)
unpack_float32(const float *x, float *y, unsigned channels, unsigned plane, unsigned padded) {
    unpack(x, y, channels, plane, padded);
}

extern "C" __global__ void __launch_bounds__(256)
unpack_bfloat16(const bfloat16 *x, float *y, unsigned channels, unsigned plane, unsigned padded) {
    unpack(x, y, channels, plane, padded);
}

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

// Values that a thread adds in float32 before it goes on in float64.
#define RUN 32

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

// All maps of one channel: where a piece of them lies, counted from the channel's first value.
template <class V> struct Channel {
    unsigned pieces, channels, plane, shift;
    bool shifts;
    __device__ Channel(unsigned batch, unsigned channels, unsigned plane)
        : pieces(batch * (plane / V::COUNT)), channels(channels), plane(plane), shift(__ffs(plane / V::COUNT) - 1),
          shifts((plane / V::COUNT & (plane / V::COUNT - 1)) == 0) {}
    __device__ unsigned long long place(unsigned i) const {
        unsigned width = plane / V::COUNT, map = shifts ? i >> shift : i / width;
        return ((unsigned long long)map * channels * width + (i - map * width)) * V::COUNT;
    }
};

// Whether a piece of four values of all of them can be taken at once.
static __device__ bool wide(unsigned plane, const void *a, const void *b, const void *c, const void *d) {
    return plane % 4 == 0 && ((unsigned long long)a | (unsigned long long)b | (unsigned long long)c | (unsigned long long)d) % 16 == 0;
}

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
    for (unsigned i = threadIdx.x; i < channel.pieces; i += 2 * step) {
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
                float value = (pieces[k].at[j] - mean) * scale + bias;
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
                                         const float *gamma, float *for_x, float *for_add, float *for_parameters,
                                         unsigned batch, unsigned channels, unsigned plane) {
    unsigned c = blockIdx.x, step = blockDim.x;
    unsigned long long start = (unsigned long long)c * plane;
    Channel<V> channel(batch, channels, plane);
    float mean = statistics ? statistics[c] : 0.0f, inverse = statistics ? statistics[2 * channels + c] : 1.0f;
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
                float g = result && !(results[k].at[j] > 0.0f) ? 0.0f : grads[k].at[j];
                sum += g;
                with_x += (values[k].at[j] - mean) * g;
            }
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
    float factor = gamma[c] * inverse;
    for (unsigned i = threadIdx.x; i < channel.pieces; i += step) {
        unsigned long long at = start + channel.place(i);
        V value = V::load(x + at), g = V::load(grad + at);
        if (result) {
            V mask = V::load(result + at);
            for (unsigned j = 0; j < V::COUNT; ++j) g.at[j] = mask.at[j] > 0.0f ? g.at[j] : 0.0f;
        }
        if (for_add) g.store(for_add + at);
        for (unsigned j = 0; j < V::COUNT; ++j) value.at[j] = factor * ((g.at[j] - level) - (value.at[j] - mean) * slope);
        value.store(for_x + at);
    }
}

// A block for each channel: the gradients of `batch_norm`, or of `x * gamma + beta` where `statistics` is null. `result`, where
// there is one, is what the ReLU gave; `for_add`, where there is one, takes the gradient behind it. `for_parameters`
// [2, channels] takes those of gamma and beta.
extern "C" __global__ void __launch_bounds__(1024)
norm_gradients(const float *x, const float *grad, const float *result, const float *statistics, const float *gamma,
               float *for_x, float *for_add, float *for_parameters, unsigned batch, unsigned channels, unsigned plane) {
    if (wide(plane, x, grad, result, for_x) && wide(plane, for_add, x, x, x)) {
        norm_gradients_of<Four>(x, grad, result, statistics, gamma, for_x, for_add, for_parameters, batch, channels, plane);
    } else {
        norm_gradients_of<One>(x, grad, result, statistics, gamma, for_x, for_add, for_parameters, batch, channels, plane);
    }
}

// activation(x * scale + shift + add); scale, shift and add may be null. Activations: 0 none, 1 ReLU, 2 ReLU6, 3 PReLU.
extern "C" __global__ void
tail(const float *x, const float *scale, const float *shift, const float *add, const float *slope, float *y, unsigned channels,
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
