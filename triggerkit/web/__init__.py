"""The HTTP side: webhook routes, the management API and the ASGI application."""
