"""The long run: very many changes and faults of every kind, and the figures that come of it."""
