"""Which strategy at which sparsity: a grid of arms, its evidence, and what follows from it."""
