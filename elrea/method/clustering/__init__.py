"""Grouping features: k-means, BIRCH, by source, at random; centroids and quality figures."""
