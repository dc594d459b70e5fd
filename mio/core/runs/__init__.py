"""What lasts of a run: its folder, lock, weights and checkpoints, written whole and read without executing anything."""
