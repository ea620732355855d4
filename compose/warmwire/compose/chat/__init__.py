"""`warmwire chat`: a conversation in a terminal, or in a script."""
