"""Laboratory studies: many trainings without supervision, measured under one protocol."""
