"""`triggerkit verify`: rows compared with their effects."""
