"""A drift budget: the penalty that holds a model near its start, and the anchors it is measured on."""
