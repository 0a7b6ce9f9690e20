"""The dashboard: pages for people, on what the commands and the API know."""
