"""The linker: which segments follow one another around a membrane (paper, Section 4.1, second phase)."""
