"""`triggerkit why`: why a row has no effect, and what helps."""
