"""Tasks and the workers that execute their runs."""
