"""The tests of `triggerkit/web/api/executed/`."""
