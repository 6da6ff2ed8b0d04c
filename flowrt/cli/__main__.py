"""`python -m flowrt.cli`: the command line where no `flowrt` is on the path."""

from flowrt.cli.app import main

main()
