"""What the `stream` process does beside capture and delivery: leading, watching, retaining."""
