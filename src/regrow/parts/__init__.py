"""The ingredients of a strategy: one idea a file, pure, named in one table per folder."""
