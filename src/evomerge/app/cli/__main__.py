"""`python -m evomerge.app.cli`, the same as `evomerge`."""

from evomerge.app.cli import main

if __name__ == "__main__":
    main()
