"""How a classifier is trained: the whole job, and what every backend shares."""
