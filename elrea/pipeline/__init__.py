"""One experiment as a graph of stages: keys, order, and what makes each of them."""
