#define REGROW_ISA kernels_portable
#define REGROW_NAME "portable"
#define REGROW_WIDTH 4
#define REGROW_TILE 3
#define REGROW_BLOCK_TILE 1
#define REGROW_SUMS 3
#define REGROW_BLOCK_COST 2.3
#define REGROW_OUTPUTS 4
#define REGROW_OUTPUT_TILE 1
#define REGROW_WINOGRAD_DENSITY 0.23
#define REGROW_WINOGRAD_WAYS 1.0
#define REGROW_ACROSS_DENSITY 1.0  // never
#include "kernels.inl"
