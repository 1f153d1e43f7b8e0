"""SmolLM2-135M-Instruct on real text."""
