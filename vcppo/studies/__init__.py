"""Studies: what is varied, the trials it makes, and the processes that run them."""
