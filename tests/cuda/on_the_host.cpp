// The kernels of gdrd-core/src/nn/kernels/cuda/layers.cu on the host, a thread for each of a block's, against their definitions.
// Ends with 1 if one is wrong. `tests/it/cuda_on_the_host.rs` compiles and runs it.

#include <barrier>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#define __device__
#define __global__
#define __launch_bounds__(threads)
#define __shared__ static

struct Place {
    unsigned x = 0, y = 0, z = 0;
};
static thread_local Place threadIdx;
static Place blockIdx, blockDim, gridDim;
static std::barrier<> *block;
static void __syncthreads() { block->arrive_and_wait(); }

struct float4 {
    float x, y, z, w;
};
struct uint4 {
    unsigned x, y, z, w;
};
static uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
static float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
static int __ffs(int bits) { return __builtin_ffs(bits); }
static double __shfl_xor_sync(unsigned, double value, int other) {
    static double all[1024];
    all[threadIdx.x] = value;
    __syncthreads();
    value = all[threadIdx.x ^ other];
    __syncthreads();
    return value;
}
static unsigned __float_as_uint(float x) {
    unsigned bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}
static float __uint_as_float(unsigned bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

namespace gpu {
#include "../../gdrd-core/src/nn/kernels/cuda/layers.cu"
}

// Runs a kernel, block after block.
template <class Kernel> static void launch(unsigned across, unsigned down, unsigned threads, Kernel kernel) {
    gridDim = {across, down, 1};
    blockDim = {threads, 1, 1};
    std::barrier<> all(threads);
    block = &all;
    std::vector<std::thread> running;
    for (unsigned t = 0; t < threads; ++t) {
        running.emplace_back([=] {
            threadIdx = {t, 0, 0};
            for (unsigned at = 0; at < across * down; ++at) {
                __syncthreads();
                if (t == 0) blockIdx = {at % across, at / across, 0};
                __syncthreads();
                kernel();
            }
        });
    }
    for (auto &thread : running) thread.join();
}

static bool wrong = false;

static void expect(const char *what, double found, double expected, double tolerance) {
    if (std::abs(found - expected) <= tolerance * std::fmax(1.0, std::abs(expected))) return;
    if (!wrong) std::printf("%s: found %g, expected %g\n", what, found, expected);
    wrong = true;
}

static std::vector<float> numbers(size_t count) {
    std::vector<float> values(count);
    for (auto &value : values) value = 4.0f * std::rand() / RAND_MAX - 2.0f;
    return values;
}

static double plain(float value) { return value; }
static double plain(gpu::bfloat16 bits) { return __uint_as_float((unsigned)bits << 16); }

// Maps pixel by pixel, and back.
template <class T> static void packing(unsigned images, unsigned places, unsigned channels, unsigned padded, unsigned plane) {
    double tolerance = sizeof(T) == 2 ? 1.0 / 256 : 0.0;
    auto x = numbers(images * channels * plane);
    std::vector<T> y(places * plane * padded, T(77));
    unsigned pixels = images * plane, room = places * plane, down = (padded + 63) / 64;
    launch((room + 63) / 64, down, 256, [&] { gpu::pack(x.data(), y.data(), pixels, room, channels, plane, padded); });
    for (unsigned i = 0; i < places; ++i)
        for (unsigned p = 0; p < plane; ++p)
            for (unsigned c = 0; c < padded; ++c) {
                double expected = i < images && c < channels ? x[(i * channels + c) * plane + p] : 0.0;
                expect("pack", plain(y[(i * plane + p) * padded + c]), expected, tolerance);
            }
    std::vector<float> back(x.size(), 99.0f);
    launch((pixels + 63) / 64, down, 256, [&] { gpu::unpack(y.data(), back.data(), pixels, channels, plane, padded); });
    for (size_t i = 0; i < x.size(); ++i) expect("unpack", back[i], x[i], tolerance);
}

// A convolution that keeps channels apart, and both gradients of the sum of its outputs times `g`.
static void depthwise(int kernel, int stride, int padding) {
    int batch = 2, channels = 3, height = 7, width = 9, taps = kernel * kernel;
    int rows = (height + 2 * padding - kernel) / stride + 1, columns = (width + 2 * padding - kernel) / stride + 1;
    unsigned n = batch * channels * rows * columns, inputs = batch * channels * height * width;
    auto x = numbers(inputs), w = numbers(channels * taps), g = numbers(n);
    std::vector<float> y(n, 99.0f), for_x(inputs, 99.0f), for_w(channels * taps, 99.0f);
    launch((n + 63) / 64, 1, 64, [&] {
        gpu::depthwise(x.data(), w.data(), y.data(), channels, height, width, rows, columns, kernel, kernel, stride, padding, n);
    });
    launch((inputs + 63) / 64, 1, 64, [&] {
        gpu::depthwise_input(g.data(), w.data(), for_x.data(), channels, height, width, rows, columns, kernel, kernel, stride, padding,
                             inputs);
    });
    launch(channels, (taps + 1) / 2, 32, [&] {
        gpu::depthwise_weight(x.data(), g.data(), for_w.data(), channels, height, width, rows, columns, kernel, kernel, stride, padding,
                              n / channels);
    });
    std::vector<double> expected_x(inputs, 0.0), expected_w(channels * taps, 0.0);
    for (unsigned i = 0; i < n; ++i) {
        int column = i % columns, row = i / columns % rows, map = i / (rows * columns);
        double sum = 0.0;
        for (int a = 0; a < kernel; ++a)
            for (int b = 0; b < kernel; ++b) {
                int r = row * stride + a - padding, c = column * stride + b - padding;
                if (r < 0 || c < 0 || r >= height || c >= width) continue;
                int tap = (map % channels * kernel + a) * kernel + b, at = (map * height + r) * width + c;
                sum += (double)w[tap] * x[at];
                expected_x[at] += (double)w[tap] * g[i];
                expected_w[tap] += (double)x[at] * g[i];
            }
        expect("depthwise", y[i], sum, 1e-5);
    }
    for (unsigned i = 0; i < inputs; ++i) expect("gradient of depthwise's input", for_x[i], expected_x[i], 1e-5);
    for (int i = 0; i < channels * taps; ++i) expect("gradient of depthwise's weight", for_w[i], expected_w[i], 1e-5);
}

// What each output of a convolution of 4 channels is made of.
static void columns(unsigned kernel_h, unsigned kernel_w, unsigned stride, unsigned padding) {
    unsigned batch = 2, height = 7, width = 9, taps = kernel_h * kernel_w;
    unsigned rows = (height + 2 * padding - kernel_h) / stride + 1, places = (width + 2 * padding - kernel_w) / stride + 1;
    unsigned n = batch * rows * places * taps;
    auto x = numbers(batch * height * width * 4);
    std::vector<float> y(4 * n, 99.0f);
    launch((n + 63) / 64, 1, 64, [&] {
        gpu::columns((const float4 *)x.data(), (float4 *)y.data(), height, width, rows, places, kernel_h, kernel_w, stride, padding, n);
    });
    for (unsigned i = 0; i < 4 * n; ++i) {
        unsigned tap = i / 4 % taps, out = i / 4 / taps, image = out / (rows * places);
        int r = out / places % rows * stride + tap / kernel_w - padding, c = out % places * stride + tap % kernel_w - padding;
        bool inside = r >= 0 && c >= 0 && r < (int)height && c < (int)width;
        expect("columns", y[i], inside ? x[((image * height + r) * width + c) * 4 + i % 4] : 0.0, 0.0);
    }
}

// Batch normalisation with addition and ReLU, and its gradients.
static void normalisation(unsigned batch, unsigned channels, unsigned plane, bool with_add, bool relu) {
    unsigned n = batch * plane, all = n * channels;
    auto x = numbers(all), gamma = numbers(channels), beta = numbers(channels), add = numbers(all), grad = numbers(all);
    std::vector<float> y(all), statistics(3 * channels), for_x(all), for_add(all), sums(2 * channels);
    float *added = with_add ? add.data() : nullptr, *result = with_add ? y.data() : nullptr;
    launch(channels, 1, 64, [&] {
        gpu::batch_norm(x.data(), gamma.data(), beta.data(), added, y.data(), statistics.data(), batch, channels, plane, 1e-5, relu);
    });
    launch(channels, 1, 64, [&] {
        gpu::norm_gradients(x.data(), grad.data(), result, statistics.data(), gamma.data(),
                            relu && !with_add ? beta.data() : nullptr, for_x.data(), with_add ? for_add.data() : nullptr,
                            sums.data(), batch, channels, plane);
    });
    for (unsigned c = 0; c < channels; ++c) {
        auto each = [&](auto visit) {
            for (unsigned i = 0; i < n; ++i) visit((i / plane * channels + c) * plane + i % plane);
        };
        double mean = 0.0, variance = 0.0, total = 0.0, product = 0.0;
        each([&](unsigned at) { mean += x[at] / (double)n; });
        each([&](unsigned at) { variance += (x[at] - mean) * (x[at] - mean) / n; });
        double inverse = 1.0 / std::sqrt(variance + 1e-5);
        auto passed = [&](unsigned at) { return relu && y[at] <= 0.0f ? 0.0 : (double)grad[at]; };
        each([&](unsigned at) {
            double value = (x[at] - mean) * inverse * gamma[c] + beta[c] + (with_add ? add[at] : 0.0f);
            expect("batch_norm", y[at], relu ? std::fmax(value, 0.0) : value, 1e-5);
            total += passed(at);
            product += passed(at) * (x[at] - mean) * inverse;
        });
        expect("gradient of gamma", sums[c], product, 1e-5);
        expect("gradient of beta", sums[channels + c], total, 1e-5);
        each([&](unsigned at) {
            double normal = (x[at] - mean) * inverse;
            expect("gradient of x", for_x[at], gamma[c] * inverse * (passed(at) - total / n - normal * product / n), 1e-5);
            if (with_add) expect("gradient of the addition", for_add[at], passed(at), 0.0);
        });
    }
}

int main() {
    normalisation(3, 2, 77, true, true);
    normalisation(5, 3, 64, true, true);
    normalisation(2, 2, 36, false, false);
    normalisation(7, 2, 100, false, true);
    normalisation(9, 3, 1, false, true);
    packing<float>(3, 3, 3, 4, 49);
    packing<float>(5, 8, 64, 64, 1);
    packing<gpu::bfloat16>(2, 2, 3, 8, 256);
    packing<gpu::bfloat16>(3, 5, 130, 136, 9);
    packing<float>(3, 4, 70, 72, 16);
    packing<gpu::bfloat16>(9, 9, 64, 64, 16);
    columns(3, 3, 1, 1);
    columns(5, 2, 3, 2);
    for (int kernel : {3, 5})
        for (int stride : {1, 2})
            for (int padding : {0, 1, 2}) depthwise(kernel, stride, padding);
    return wrong;
}
