"""The frozen backbone, the LoRA adapters on it, and their training."""
