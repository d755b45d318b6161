"""Points placed by the tomogram itself, once there are surfaces."""
