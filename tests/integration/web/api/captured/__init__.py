"""The tests of `triggerkit/web/api/captured/`."""
