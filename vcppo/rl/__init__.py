"""One iteration of RL: sample, score, select, estimate, update. No cache and no folders."""
