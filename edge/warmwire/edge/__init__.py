"""The edge: HTTP in front of NATS. Server-sent events, the chat page."""
