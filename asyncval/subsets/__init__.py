"""Corpus subsets: making them, knowing them again, and how far they may be trusted."""
