"""The science: M, T, their joint training, and what membership scores are worth."""
