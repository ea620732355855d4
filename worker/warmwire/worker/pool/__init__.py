"""Which processes there are, who gets which, and which go."""
