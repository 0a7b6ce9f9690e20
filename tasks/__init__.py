"""The reference project's tasks."""
