"""Putting the roles together on one machine: the `warmwire` command."""
