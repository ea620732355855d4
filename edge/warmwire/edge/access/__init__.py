"""Who may do what, how often, and with how much at a time."""
