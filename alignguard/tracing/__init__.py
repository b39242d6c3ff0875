"""Which rows of the training set a regression came from."""
