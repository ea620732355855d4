"""What a CLI is told and what it says, whatever its dialect, and how it is started."""
