"""What is the same whichever part is used."""
