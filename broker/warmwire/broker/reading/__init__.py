"""How what has come is put in order, and what is missing asked for."""
