"""Vocabulary: the names, values and protocols that every other layer speaks in."""
