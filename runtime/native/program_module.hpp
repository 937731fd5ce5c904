// Programs for Python. What is given here was planned from a checked graph; sizes are checked again
// all the same, since a mistake would write over foreign memory.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string>
#include <vector>

#include "program.hpp"

namespace regrow {

namespace nb = nanobind;

using Floats4 = nb::ndarray<const float, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Floats1 = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using FloatsIn = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using FloatsOut = nb::ndarray<float, nb::c_contig, nb::device::cpu>;
using Pair = std::array<std::size_t, 2>;

namespace program_detail {

template <typename Op>
Op op_of(const std::string& name, const std::vector<const char*>& names) {
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (name == names[i]) return static_cast<Op>(i);
  }
  throw nb::value_error(("no operation is called " + name).c_str());
}

inline Unary unary_of(const std::string& name) {
  return op_of<Unary>(name, {"relu", "relu6", "sigmoid", "tanh", "silu", "hardswish", "hardsigmoid",
                             "mish", "softplus", "leaky_relu", "elu", "gelu", "gelu_tanh", "clamp",
                             "affine"});
}

inline Binary binary_of(const std::string& name) {
  return op_of<Binary>(name, {"add", "sub", "mul"});
}

inline std::vector<float> floats(Floats1 array) {
  return std::vector<float>(array.data(), array.data() + array.size());
}

inline std::size_t entries(const View& view, std::size_t images) { return view.entries() * images; }

template <typename Array>
void check_sizes(const std::vector<Array>& arrays, const std::vector<View>& views,
                 std::size_t images, const char* what) {
  bool fits = arrays.size() == views.size();
  for (std::size_t i = 0; fits && i < views.size(); ++i) {
    fits = arrays[i].size() == entries(views[i], images);
  }
  if (!fits) throw nb::value_error(what);
}

}  // namespace program_detail

inline void bind_program(nb::module_& module) {
  using namespace program_detail;

  module.def("known_kernels", &known_kernels, "Instruction sets of this processor, the best first.");

  nb::class_<Geometry>(module, "Geometry")
      .def("__init__",
           [](Geometry* self, std::size_t channels, Pair size, Pair padding, std::size_t lanes) {
             new (self) Geometry{channels, size[0], size[1], padding[0], padding[1], lanes};
           })
      .def_prop_ro("row", &Geometry::row)
      .def_prop_ro("plane", &Geometry::plane)
      .def_prop_ro("first", &Geometry::first)
      .def_prop_ro("size", &Geometry::size);

  nb::class_<View>(module, "View")
      .def("__init__", [](View* self, std::size_t buffer, std::size_t offset,
                          std::vector<std::size_t> dims, std::vector<std::size_t> strides) {
        new (self) View{buffer, offset, std::move(dims), std::move(strides)};
      });

  nb::class_<Program>(module, "Program")
      .def(nb::init<std::size_t, std::size_t, bool, const std::string&>(), nb::arg("lanes"),
           nb::arg("threads"), nb::arg("apart"), nb::arg("isa"))
      .def("buffer", &Program::buffer)
      .def("constant", [](Program& self, Floats1 values) { return self.constant(floats(values)); })
      .def(
          "conv",
          [](Program& self, Floats4 weights, Floats1 bias, std::size_t groups, Pair stride,
             Pair padding, Pair dilation, const Geometry& in, std::size_t from, const Geometry& out,
             std::size_t to, std::ptrdiff_t residual, float low, float high) {
            const std::size_t outputs = weights.shape(0), channels = weights.shape(1) * groups;
            if (groups == 0 || outputs % groups != 0 || bias.size() != outputs ||
                in.channels != channels || out.channels != outputs ||
                std::min({stride[0], stride[1], dilation[0], dilation[1], weights.shape(2),
                          weights.shape(3)}) == 0) {
              throw nb::value_error("weights, bias and geometry of a convolution disagree");
            }
            ConvWeights made{{channels,
                              outputs,
                              groups,
                              {weights.shape(2), weights.shape(3)},
                              {stride[0], stride[1]},
                              {padding[0], padding[1]},
                              {dilation[0], dilation[1]}},
                             std::vector<float>(weights.data(), weights.data() + weights.size()),
                             floats(bias)};
            self.conv(made, in, from, out, to, residual, low, high);
          })
      .def("copy", &Program::copy)
      .def("unary", [](Program& self, const std::string& op, float p, float q, View from,
                       View to) { self.unary(unary_of(op), p, q, from, to); })
      .def("binary", [](Program& self, const std::string& op, View a, View b, View to, float low,
                        float high) { self.binary(binary_of(op), a, b, to, low, high); })
      .def("pool",
           [](Program& self, Pair kernel, Pair stride, Pair padding, Pair dilation, bool mean,
              bool count_padding, View from, View to) {
             self.pool({{kernel[0], kernel[1]},
                        {stride[0], stride[1]},
                        {padding[0], padding[1]},
                        {dilation[0], dilation[1]},
                        mean,
                        count_padding},
                       from, to);
           })
      .def("adaptive_pool", &Program::adaptive_pool)
      .def("mean", &Program::mean)
      .def("softmax", &Program::softmax)
      .def("layer_norm",
           [](Program& self, View from, std::size_t axes, float eps, Floats1 weight, Floats1 bias,
              View to) { self.layer_norm(from, axes, eps, floats(weight), floats(bias), to); })
      .def("input", &Program::input)
      .def("output", &Program::output)
      .def("finish", &Program::finish)
      .def(
          "run",
          [](Program& self, const std::vector<FloatsIn>& inputs,
             const std::vector<FloatsOut>& outputs, std::size_t images) {
            check_sizes(inputs, self.inputs(), images, "an input has another size");
            check_sizes(outputs, self.outputs(), images, "an output has another size");
            std::vector<const float*> in;
            std::vector<float*> out;
            for (const FloatsIn& array : inputs) in.push_back(array.data());
            for (const FloatsOut& array : outputs) out.push_back(array.data());
            nb::gil_scoped_release release;
            self.run(in, out, images);
          })
      .def("profile",
           [](Program& self, std::size_t repeats) {
             nb::gil_scoped_release release;
             return self.profile(repeats);
           })
      .def("peak",
           [](const Program& self) {
             nb::gil_scoped_release release;
             return self.peak();
           })
      .def_prop_ro("images", &Program::images)
      .def_prop_ro("turns", &Program::turns)
      .def_prop_ro("useful", &Program::useful)
      .def_prop_ro("bytes", &Program::bytes);
}

}  // namespace regrow
