"""Convert what a task is given: its type, the JSON that carries it, and the way back."""
