"""Commands about what is captured and where it goes: consumers, endpoints, messages, events."""
