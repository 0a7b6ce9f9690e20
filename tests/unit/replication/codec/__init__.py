"""The tests of `triggerkit/replication/codec/`."""
