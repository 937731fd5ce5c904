"""Plans, and the only code that writes into a user's model or optimiser."""
