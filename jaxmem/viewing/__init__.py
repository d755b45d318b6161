"""napari's way in: a run's folder as layers, and a panel to correct a run (extra `napari`)."""
