"""Which backbone is best for one's own photos: several trained alike, scored, timed, and laid side by side."""

from panfpn.probing.run import Probe, Row, probe

__all__ = ["Probe", "Row", "probe"]
