"""Tunnels as `serve` holds them: who opens one, and what goes through."""
