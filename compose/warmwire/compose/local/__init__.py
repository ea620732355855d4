"""All roles on one machine."""
