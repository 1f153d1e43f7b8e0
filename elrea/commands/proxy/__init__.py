"""The application of `elrea route-proxy`."""
