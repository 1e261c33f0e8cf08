"""The control plane itself: what a fake and a local authority are built on, and the wire that they speak."""
