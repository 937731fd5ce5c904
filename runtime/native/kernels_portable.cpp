#define REGROW_ISA kernels_portable
#define REGROW_NAME "portable"
#define REGROW_WIDTH 4
#define REGROW_TILE 3
#define REGROW_BLOCK_TILE 1
#define REGROW_SUMS 3
#define REGROW_BLOCK_COST 2.3
#include "kernels.inl"
