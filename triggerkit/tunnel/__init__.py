"""The command `tunnel`: a connection to a server, and what it delivers to ports of this machine."""
