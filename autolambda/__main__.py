"""``python -m autolambda`` is the command ``autolambda``."""

from autolambda.cli.main import main

main()
