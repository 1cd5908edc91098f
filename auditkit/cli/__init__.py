"""The `auditkit` command. Each command group is one thin module: parse, call, print."""

from auditkit.cli.application import main

__all__ = ["main"]
