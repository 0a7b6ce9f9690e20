"""`triggerkit dev`: servers and processes in a folder, started, reloaded and stopped."""
