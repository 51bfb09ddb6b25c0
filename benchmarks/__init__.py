"""Side-by-side comparisons with what a user would write otherwise. Run from a checkout."""
