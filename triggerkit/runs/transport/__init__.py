"""What carries the ids of ready runs to workers."""
