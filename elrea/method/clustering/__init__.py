"""Clustering of the training examples by their features (step 3): k-means, BIRCH, by source, at random; centroids,
quality figures and the search index."""
