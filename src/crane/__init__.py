"""Crane makes an unmodified Linux server highly available."""

__version__ = "0.1.0"
