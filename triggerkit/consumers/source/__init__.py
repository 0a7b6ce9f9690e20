"""A source as the state knows it: its database and slot, its tables by OID, what is published."""
