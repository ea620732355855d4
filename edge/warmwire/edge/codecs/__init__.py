"""A turn in the shapes of others, with their routes."""
