"""`python -m bnoise_cli` is the same program as `bnoise`."""

from bnoise_cli.cli.app import main

if __name__ == "__main__":
    main()
