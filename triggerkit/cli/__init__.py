"""The command `triggerkit`."""
