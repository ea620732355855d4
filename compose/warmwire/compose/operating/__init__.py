"""Commands for whoever operates a deployment: what they see of it, and do to it."""
