"""Long lists, a page at a time."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Paging:
    """Which page of a list is shown; pages count from 1, and after the last comes none."""

    asked: int
    size: int
    total: int

    @property
    def number(self) -> int:
        """Number of the page that is shown: the one that was asked for, or else the last."""
        return min(self.asked, self.pages)

    @property
    def first(self) -> int:
        """Index of the first item on the page."""
        return (self.number - 1) * self.size

    @property
    def last(self) -> int:
        """Index after the last item on the page."""
        return min(self.first + self.size, self.total)

    @property
    def pages(self) -> int:
        """Number of pages; an empty list has one."""
        return max(1, -(-self.total // self.size))

    @property
    def previous(self) -> int | None:
        """Number of the page before."""
        return self.number - 1 if self.number > 1 else None

    @property
    def following(self) -> int | None:
        """Number of the page after."""
        return self.number + 1 if self.number < self.pages else None
