"""What a person types: commands, nothing but argument handling."""

from failscape.cli.app import main

__all__ = ["main"]
