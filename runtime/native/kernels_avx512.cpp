#define REGROW_ISA kernels_avx512
#define REGROW_NAME "avx512"
#define REGROW_WIDTH 16
#define REGROW_TILE 12
#define REGROW_BLOCK_TILE 6
#define REGROW_SUMS 24
#define REGROW_BLOCK_COST 2.3
#include "kernels.inl"
