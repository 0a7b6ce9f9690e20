"""One action on all runs or parked messages that fit a filter, done in the background."""
