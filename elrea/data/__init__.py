"""Examples: where they come from, how they are worded and cut into batches."""
