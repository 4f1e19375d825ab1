"""``python -m autolambda`` is the command line."""

from autolambda.cli.main import main

if __name__ == "__main__":
    main()
