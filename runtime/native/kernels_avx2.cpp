#define REGROW_ISA kernels_avx2
#define REGROW_NAME "avx2"
#define REGROW_WIDTH 8
#define REGROW_TILE 6
#define REGROW_BLOCK_TILE 1
#define REGROW_SUMS 6
#define REGROW_BLOCK_COST 2.3
#include "kernels.inl"
