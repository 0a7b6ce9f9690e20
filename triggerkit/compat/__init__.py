"""The APIs of the systems that triggerkit stands in for, for the clients that people have."""
