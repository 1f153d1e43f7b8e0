"""Routing: a prompt's weights (5.9), from the cosines of its gradient or from those that a learned router predicts."""
