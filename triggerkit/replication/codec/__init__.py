"""The bytes of a slot's stream as values and changes; nothing here does I/O."""
