"""The walker: labelled pixels of a slice in the order of the membranes they lie on (paper, Section 4.1, first phase)."""
