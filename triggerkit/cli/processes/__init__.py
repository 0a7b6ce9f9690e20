"""The commands that run until they are ended: dev, serve, stream, deliver, worker."""
