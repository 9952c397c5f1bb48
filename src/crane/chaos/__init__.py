"""Faults on purpose: a cluster of one's own, a load that remembers, and what was lost."""
