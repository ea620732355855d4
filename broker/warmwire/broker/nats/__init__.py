"""How it travels: connections, streams, records, queues. Nothing outside this room imports `nats`."""
