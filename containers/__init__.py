"""The closed container in which supervised training is to run: the image and its identity."""
