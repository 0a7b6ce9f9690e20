"""Tunnels to endpoints on somebody's own machine: who may open one, which are open, what passes."""
