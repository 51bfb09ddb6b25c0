"""What a format is asked, and how its answers are compared."""
