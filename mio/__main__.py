"""`python -m mio`: the command line."""

from mio.cli import main

if __name__ == "__main__":
    main()
