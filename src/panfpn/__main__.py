"""`python -m panfpn`, and `torchrun … -m panfpn train …`."""

import sys

from panfpn.cli import main

if __name__ == "__main__":  # a data worker that is spawned imports this file too
    sys.exit(main())
