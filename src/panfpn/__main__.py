"""`python -m panfpn`, and `torchrun … -m panfpn train …`."""

import sys

from panfpn.cli import main

sys.exit(main())
