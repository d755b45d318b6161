"""Tomograms by physics: a scene of membranes and of what is none, its tilt series, its reconstruction, and what becomes of that."""
