"""What is captured, through the API: databases, consumers, endpoints, messages, users of events."""
