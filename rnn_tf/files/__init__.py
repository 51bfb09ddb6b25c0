"""Files written whole, arrays read safely, and the folder of caches."""
