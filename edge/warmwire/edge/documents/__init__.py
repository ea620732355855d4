"""What the interfaces look like, as documents for machines: OpenAPI, AsyncAPI."""
