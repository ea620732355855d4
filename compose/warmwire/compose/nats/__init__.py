"""nats-server: its program, its configuration, its certificates."""
