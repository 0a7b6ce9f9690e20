"""What is done from pages: each is a POST that leads back to the page it was asked for on."""
