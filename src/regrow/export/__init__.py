"""Writing a pruned network down: the packed file, lossless to the bit."""
