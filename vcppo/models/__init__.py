"""Networks: loaded, sharded, run forward over responses, stepped, saved."""
