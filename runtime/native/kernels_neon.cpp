#define REGROW_ISA kernels_neon
#define REGROW_NAME "neon"
#define REGROW_WIDTH 4
#define REGROW_TILE 6
#define REGROW_BLOCK_TILE 1
#define REGROW_SUMS 6
#define REGROW_BLOCK_COST 2.3
#define REGROW_OUTPUTS 4
#define REGROW_OUTPUT_TILE 1
#define REGROW_WINOGRAD_DENSITY 0.23
#define REGROW_WINOGRAD_WAYS 1.0
#define REGROW_ACROSS_DENSITY 1.0  // never
#include "kernels.inl"
