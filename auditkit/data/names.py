"""Names that others gave to files, made fit to be shown."""

MOST_CHARACTERS = 80
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"


def shown(name: str) -> str:
    """Return a name for a message: on one line, in its own direction, and not too long.

    Control characters, line ends, and marks that turn the direction of what follows are replaced.
    Whoever puts it into a page still has to escape it.
    """
    safe = "".join(c if c.isprintable() else REPLACEMENT for c in name[: MOST_CHARACTERS + 1])
    return safe if len(safe) <= MOST_CHARACTERS else safe[: MOST_CHARACTERS - 1] + ELLIPSIS
