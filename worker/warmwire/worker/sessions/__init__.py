"""A session in its owner's hands, from a pulled message to the end of its turn."""
