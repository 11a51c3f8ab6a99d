"""`python -m committee` is the command `committee`."""

from committee.cli.main import main

if __name__ == "__main__":
    main()
