"""``python -m diptych.cli`` is the command ``diptych``."""

from diptych.cli import main

# Workers that are spawned import this module again; they must not run the command again.
if __name__ == "__main__":
    main()
