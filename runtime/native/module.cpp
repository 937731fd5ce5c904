#include "codec_module.hpp"
#include "program_module.hpp"

NB_MODULE(_native, module) {
  regrow::bind_codec(module);
  regrow::bind_program(module);
}
