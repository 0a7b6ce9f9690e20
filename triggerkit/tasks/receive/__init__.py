"""Receive messages for a task: check them, and make its runs of them."""
