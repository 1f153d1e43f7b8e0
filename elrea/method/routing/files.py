"""Names of the files of a trained router and of its predictions."""

WEIGHTS, FIGURES, COSINES = "router.safetensors", "router.json", "cosines.safetensors"
