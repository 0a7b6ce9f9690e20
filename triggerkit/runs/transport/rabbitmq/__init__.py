"""RabbitMQ as the transport of runs; its client is an extra."""
