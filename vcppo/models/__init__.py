"""How a network runs: loaded, sharded, run forward over responses, stepped, saved."""
