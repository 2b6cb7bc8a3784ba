"""``python -m geounet.cli``."""

from geounet.cli import main

if __name__ == "__main__":  # workers that are spawned import this module under another name
    main()
