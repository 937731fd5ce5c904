#define REGROW_ISA kernels_neon
#define REGROW_NAME "neon"
#define REGROW_WIDTH 4
#define REGROW_TILE 6
#define REGROW_BLOCK_TILE 1
#define REGROW_SUMS 6
#define REGROW_BLOCK_COST 2.3
#include "kernels.inl"
