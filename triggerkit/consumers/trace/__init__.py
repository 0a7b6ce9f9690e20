"""The way of one change, from its commit to the spans of its run."""
