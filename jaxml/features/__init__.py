"""Features as pure functions of the raw input, the same in training and in serving."""
