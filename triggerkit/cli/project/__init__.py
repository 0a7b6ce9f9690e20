"""Commands about a project: made, checked, applied, imported, and its database opened."""
