"""Real data, read, checked and split: NumPy in, NumPy out, no JAX."""
