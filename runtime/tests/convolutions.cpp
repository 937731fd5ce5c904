// Convolutions of random shapes on every instruction set of the processor, against double precision.
// For processors that are not at hand: compiled for them, and run in an emulator (see cross.sh).
#include <cmath>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "../native/convolution.hpp"

using namespace regrow;

namespace {

std::mt19937 generator(0);

std::size_t drawn(std::size_t low, std::size_t high) {
  return std::uniform_int_distribution<std::size_t>(low, high)(generator);
}

struct Case {
  ConvWeights weights;
  std::size_t height, width, lanes, rows, columns;  // of input and output

  double expected(const std::vector<float>& in, std::size_t output, std::size_t y, std::size_t x,
                  std::size_t lane) const {
    const ConvShape& s = weights.shape;
    const std::size_t width_in = s.channels / s.groups, first = output / (s.outputs / s.groups) * width_in;
    double sum = weights.bias[output];
    for (std::size_t c = 0; c < width_in; ++c) {
      for (std::size_t i = 0; i < s.kernel[0]; ++i) {
        for (std::size_t j = 0; j < s.kernel[1]; ++j) {
          const std::size_t row = y * s.stride[0] + i * s.dilation[0];
          const std::size_t column = x * s.stride[1] + j * s.dilation[1];
          if (row < s.padding[0] || row - s.padding[0] >= height || column < s.padding[1] ||
              column - s.padding[1] >= width) {
            continue;
          }
          const std::size_t pixel = ((first + c) * height + row - s.padding[0]) * width + column - s.padding[1];
          const std::size_t at = ((output * width_in + c) * s.kernel[0] + i) * s.kernel[1] + j;
          sum += double(weights.weights[at]) * in[pixel * lanes + lane];
        }
      }
    }
    return std::max(sum, 0.0);
  }
};

bool draw(Case& made) {
  ConvShape& s = made.weights.shape;
  s.groups = drawn(0, 3) ? 1 : drawn(2, 4);
  s.channels = s.groups * drawn(1, 12);
  s.outputs = s.groups * drawn(1, 18);
  made.height = drawn(1, 20), made.width = drawn(1, 20);
  made.lanes = std::size_t{1} << drawn(0, 4);
  const bool same = drawn(0, 1);
  for (std::size_t a = 0; a < 2; ++a) {
    s.kernel[a] = same ? 2 * drawn(0, 2) + 1 : drawn(1, 4);
    s.dilation[a] = drawn(1, 2);
    s.stride[a] = same ? 1 : drawn(1, 3);
    s.padding[a] = same ? (s.kernel[a] - 1) * s.dilation[a] / 2 : drawn(0, 3);
  }
  if (!drawn(0, 2)) {  // as minimal filtering takes it, where it is dense enough
    s.groups = 1, s.channels = drawn(8, 20), s.outputs = drawn(8, 20);
    for (std::size_t a = 0; a < 2; ++a) s.kernel[a] = 3, s.dilation[a] = s.stride[a] = 1, s.padding[a] = drawn(0, 2);
    if (drawn(0, 1)) s.padding[0] = s.padding[1] = 1;
    made.height = drawn(12, 40), made.width = drawn(12, 40);
    if (drawn(0, 1)) {  // or as it is computed for few pixels, with outputs side by side
      s.padding[0] = s.padding[1] = made.lanes = 1, s.outputs = drawn(1, 40);
      made.height = made.width = drawn(2, 4);
    }
  }
  const auto size = [&](std::size_t a, std::size_t given) {
    const std::size_t reach = (s.kernel[a] - 1) * s.dilation[a], padded = given + 2 * s.padding[a];
    return padded > reach ? (padded - reach - 1) / s.stride[a] + 1 : 0;
  };
  made.rows = size(0, made.height), made.columns = size(1, made.width);
  std::normal_distribution<float> normal;
  const double density = drawn(0, 4) / 4.0;
  made.weights.weights.assign(s.outputs * s.channels / s.groups * s.kernel[0] * s.kernel[1], 0);
  for (float& w : made.weights.weights) {
    if (std::uniform_real_distribution<>()(generator) < density) w = normal(generator);
  }
  made.weights.bias.resize(s.outputs);
  for (float& b : made.weights.bias) b = normal(generator);
  return made.rows && made.columns;
}

// The largest difference from the reference.
double difference(const Case& drawn_case, const Kernels& kernels, std::size_t shares) {
  const ConvShape& s = drawn_case.weights.shape;
  Geometry in{s.channels, drawn_case.height, drawn_case.width, 0, 0, drawn_case.lanes};
  Geometry out{s.outputs, drawn_case.rows, drawn_case.columns, 0, 0, drawn_case.lanes};
  if (in.height == out.height && in.width == out.width) {
    in.top = out.top = std::max(s.padding[0], (s.kernel[0] - 1) * s.dilation[0]);
    if (drawn(0, 1) || in.lanes == 16) in.left = out.left = std::max(s.padding[1], (s.kernel[1] - 1) * s.dilation[1]);
  }
  const auto space = [](std::size_t floats) { return std::vector<float>(floats + 2 * kSlack + 16, 0.0f); };
  const auto aligned = [](std::vector<float>& buffer) {
    auto at = reinterpret_cast<std::uintptr_t>(buffer.data() + kSlack);
    return reinterpret_cast<float*>((at + 63) / 64 * 64);
  };
  std::vector<float> image(s.channels * in.height * in.width * in.lanes), a = space(in.size());
  std::normal_distribution<float> normal;
  for (float& pixel : image) pixel = normal(generator);
  const auto place = [](const Geometry& g, std::size_t c, std::size_t y, std::size_t x) {
    return c * g.plane() + g.first() + y * g.row() + x * g.lanes;
  };
  std::size_t next = 0;
  for (std::size_t c = 0; c < s.channels; ++c) {
    for (std::size_t y = 0; y < in.height; ++y) {
      for (std::size_t x = 0; x < in.width; ++x) {
        for (std::size_t l = 0; l < in.lanes; ++l) aligned(a)[place(in, c, y, x) + l] = image[next++];
      }
    }
  }
  const auto conv = make_convolution(drawn_case.weights, in, out, 0, INFINITY, kernels, shares);
  std::vector<float> b = space(out.size()), scratch = space(conv->scratch_size());
  for (std::size_t share = 0; share < shares; ++share) {
    conv->compute(aligned(a), aligned(scratch), nullptr, aligned(b), share, 0);
  }
  double most = 0;
  for (std::size_t c = 0; c < s.outputs; ++c) {
    for (std::size_t y = 0; y < out.height; ++y) {
      for (std::size_t x = 0; x < out.width; ++x) {
        for (std::size_t l = 0; l < out.lanes; ++l) {
          const double wanted = drawn_case.expected(image, c, y, x, l);
          most = std::max(most, std::abs(wanted - aligned(b)[place(out, c, y, x) + l]));
        }
      }
    }
  }
  return most;
}

}  // namespace

int main(int argc, char** argv) {
  const int cases = argc > 1 ? std::stoi(argv[1]) : 300;
  for (const std::string& name : known_kernels()) {
    generator.seed(0);
    double most = 0;
    int done = 0;
    while (done < cases) {
      Case drawn_case;
      if (!draw(drawn_case)) continue;
      most = std::max(most, difference(drawn_case, *find_kernels(name), drawn(1, 3)));
      ++done;
    }
    std::printf("%s: %d convolutions, largest difference %.2g\n", name.c_str(), done, most);
    if (!(most < 1e-4)) return 1;
  }
  return 0;
}
