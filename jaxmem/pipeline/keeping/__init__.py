"""What a run keeps on the way: its record, and the pieces from which a broken one goes on."""
