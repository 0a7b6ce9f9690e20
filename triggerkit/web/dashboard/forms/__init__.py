"""Forms by which endpoints and consumers are made, changed and deleted."""
