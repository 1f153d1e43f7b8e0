"""The method itself: features (step 2), clustering (step 3), routing and ensemble (section 3)."""
