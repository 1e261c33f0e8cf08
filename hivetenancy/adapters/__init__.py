"""A framework's request in, the gate's answer out."""
