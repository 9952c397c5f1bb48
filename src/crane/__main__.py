"""``python -m crane`` is the ``crane`` command."""

from crane.cli import main

if __name__ == "__main__":
    main()
