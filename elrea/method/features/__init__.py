"""Features of prompts (step 2): projected gradients in Adam's form, or embeddings; in memory or in a file."""
