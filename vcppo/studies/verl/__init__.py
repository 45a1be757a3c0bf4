"""verl as a runner of a study's cells; docs/verl.md."""
