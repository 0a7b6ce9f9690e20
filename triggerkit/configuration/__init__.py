"""Read the values of settings."""
