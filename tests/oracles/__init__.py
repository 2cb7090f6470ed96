"""What a file should hold, by other ways than the engine's: nothing here or below imports exportapp."""
