"""`python -m flowrt.cli`: the command line where no `flowrt` is on the path."""

from flowrt.cli import main

main()
