#define REGROW_ISA kernels_avx512
#define REGROW_NAME "avx512"
#define REGROW_WIDTH 16
#define REGROW_TILE 16
#define REGROW_BLOCK_TILE 6
#include "kernels.inl"
