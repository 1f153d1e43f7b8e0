"""From a prompt's feature to weights, by gradient or by a distilled router."""
