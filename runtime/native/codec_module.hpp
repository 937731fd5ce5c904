// The codec for Python: NumPy arrays in, bytes out, and back.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <optional>
#include <string>
#include <vector>

#include "mask_codec.hpp"
#include "value_codec.hpp"

namespace regrow {

namespace nb = nanobind;

using BytesIn = nb::ndarray<const std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using BytesOut = nb::ndarray<std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

namespace codec_detail {

inline nb::bytes bytes(const std::vector<std::uint8_t>& data) {
  return nb::bytes(reinterpret_cast<const char*>(data.data()), data.size());
}

inline Grid grid(std::size_t rows, std::size_t columns, std::size_t inner, std::size_t size) {
  // Counts of tries are 32 bits wide.
  if (inner == 0 || inner > Grid::kMostInner || rows >= (1u << 30) || columns >= (1u << 30) ||
      std::uint64_t{rows} * columns >= (1u << 30) ||
      std::uint64_t{rows} * columns * inner != size) {
    throw nb::value_error("the grid does not fit the mask");
  }
  return {rows, columns, inner};
}

// Checks that `values` are items of this size, in rows, each with its byte of the mask, and returns
// the mask's bytes or null.
inline const std::uint8_t* mask_of(const std::optional<BytesIn>& keep, std::size_t bytes,
                                   std::size_t item, std::size_t rows) {
  const std::size_t count = bytes / item;
  if (bytes % item != 0 || (rows == 0 ? count != 0 : count % rows != 0)) {
    throw nb::value_error("rows do not divide the values");
  }
  if (keep && keep->size() != count) throw nb::value_error("values and mask differ in number");
  return keep ? keep->data() : nullptr;
}

// Calls `step` with the format and the unsigned type that a dtype is coded in.
template <typename Step>
auto with_format(const std::string& dtype, Step step) {
  if (dtype == "float32") return step(Floats<8, 23>{}, std::uint32_t{});
  if (dtype == "float16") return step(Floats<5, 10>{}, std::uint16_t{});
  if (dtype == "bfloat16") return step(Floats<8, 7>{}, std::uint16_t{});
  if (dtype == "int8") return step(Bytes{}, std::uint8_t{});
  throw nb::value_error("values of this dtype are not coded");
}

}  // namespace codec_detail

inline void bind_codec(nb::module_& module) {
  using namespace codec_detail;

  nb::exception<Damaged>(module, "Damaged", PyExc_ValueError);

  module.def(
      "encode_mask",
      [](BytesIn keep, std::size_t rows, std::size_t columns, std::size_t inner) {
        const Grid shape = grid(rows, columns, inner, keep.size());
        std::vector<std::uint8_t> out;
        {
          nb::gil_scoped_release release;
          out = encode_mask(keep.data(), shape);
        }
        return bytes(out);
      },
      nb::arg("keep"), nb::arg("rows"), nb::arg("columns"), nb::arg("inner"),
      "The coded positions of a mask of 0 and 1, (rows * columns * inner,) uint8.");

  module.def(
      "decode_mask",
      [](BytesIn data, std::size_t rows, std::size_t columns, std::size_t inner, BytesOut keep) {
        const Grid shape = grid(rows, columns, inner, keep.size());
        nb::gil_scoped_release release;
        return decode_mask(data.data(), data.size(), shape, keep.data());
      },
      nb::arg("data"), nb::arg("rows"), nb::arg("columns"), nb::arg("inner"), nb::arg("keep"),
      "Fills `keep` with 0 and 1 and returns how many are 1; raises Damaged.");

  module.def(
      "encode_values",
      [](BytesIn values, const std::string& dtype, std::size_t rows, std::optional<BytesIn> keep) {
        return with_format(dtype, [&](auto format, auto item) {
          using Item = decltype(item);
          const std::uint8_t* mask = mask_of(keep, values.size(), sizeof(Item), rows);
          std::vector<std::uint8_t> out;
          {
            nb::gil_scoped_release release;
            out = encode_values<decltype(format), Item>(values.data(), mask, rows,
                                                        values.size() / sizeof(Item));
          }
          return bytes(out);
        });
      },
      nb::arg("values"), nb::arg("dtype"), nb::arg("rows"), nb::arg("keep") = nb::none(),
      "The coded values, given as raw bytes, that the mask keeps (without one: all).");

  module.def(
      "decode_values",
      [](BytesIn data, const std::string& dtype, std::size_t rows, std::optional<BytesIn> keep,
         BytesOut out) {
        with_format(dtype, [&](auto format, auto item) {
          using Item = decltype(item);
          const std::uint8_t* mask = mask_of(keep, out.size(), sizeof(Item), rows);
          nb::gil_scoped_release release;
          decode_values<decltype(format), Item>(data.data(), data.size(), mask, rows,
                                                out.size() / sizeof(Item), out.data());
        });
      },
      nb::arg("data"), nb::arg("dtype"), nb::arg("rows"), nb::arg("keep").none(), nb::arg("out"),
      "Writes the kept values, raw bytes, where the mask keeps them; raises Damaged.");
}

}  // namespace regrow
