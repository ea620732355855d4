"""`python -m warmwire.compose` is `warmwire`."""

from .cli import main

main()
