"""Telling what would go on for long that the server is about to stop."""

import asyncio
import signal
import threading
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopping:
    """Whether this process was asked to stop. The web server waits for answers under way."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()

    async def within(self, seconds: float) -> bool:
        """Wait so long, or until the server was asked to stop; tell whether it was."""
        try:
            async with asyncio.timeout(seconds):
                await self._asked.wait()
        except TimeoutError:
            return False
        return True

    def watch(self) -> None:
        """Notice the signals that stop the web server, which go on to it. Call it in its loop."""
        if threading.current_thread() is not threading.main_thread():
            return  # no signal ever comes to others; whoever runs the loop there stops it otherwise
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            before = signal.getsignal(number)

            def notice(found: int, frame: FrameType | None, before: object = before) -> None:
                loop.call_soon_threadsafe(self._asked.set)
                if callable(before):
                    before(found, frame)

            signal.signal(number, notice)
