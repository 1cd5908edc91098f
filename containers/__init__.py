"""The closed container in which supervised training is to run: image, identity, locked-down run."""
