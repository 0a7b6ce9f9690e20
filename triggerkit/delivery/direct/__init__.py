"""Deliver to tasks of this installation without a push: their runs are made with the cursor."""
