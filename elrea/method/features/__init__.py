"""What a prompt's feature is: its gradient, projected; or an embedding."""
