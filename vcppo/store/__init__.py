"""Results by address: the cache of stages, run folders, journals, samples."""
