"""`python -m warmwire.compose` is `warmwire`."""

from warmwire.compose.cli import main

main()
