"""`python -m dlrosetta` is `rosetta`."""

from dlrosetta.cli import main

main()
