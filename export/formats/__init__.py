"""One module a format, and what formats are made of."""
