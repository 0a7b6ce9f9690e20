"""HTTP/1.1 for pushes: connections that are kept, and the addresses they may be made to."""
