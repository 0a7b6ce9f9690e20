"""Events: each change as one JSON object on its table's topic, for clients that others wrote."""
