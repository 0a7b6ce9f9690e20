"""Machines of a test's own: network namespaces, and lines that delay, lose and drop packets."""
