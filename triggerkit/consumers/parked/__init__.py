"""Parked messages: set aside because their receiver refused them, and what is done with them."""
