"""The frozen backbone, the LoRA adapters around it, and how they are trained."""
