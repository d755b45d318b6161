"""Grouping by reinforcement learning: a walker orders pixels, a linker joins segments, slices are joined (paper, Section 4.1)."""
