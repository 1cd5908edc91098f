"""A real Chromium for tests that do what people do with the pages.

Debian's package `chromium` brings it. Where it is missing, these tests are skipped; in continuous
integration (`CI` is set) they fail instead.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

DESKTOP = (1280, 900)
PHONE = (390, 844)
# Names of the places where Debian and others put it.
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


@dataclass
class Reader:
    """Somebody who looks at the pages; whatever the browser complains about is kept."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(15_000)
        self.page.on(
            "console",
            lambda message: (
                self.complaints.append(message.text) if message.type == "error" else None
            ),
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def visit(self, path: str) -> None:
        self.page.goto(self.url + path)

    def sign_in(self, token: str, path: str = "/") -> None:
        self.visit(path)
        self.page.get_by_label("Access token").fill(token)
        self.page.get_by_role("button", name="Sign in with the token").click()

    def follow(self, name: str) -> None:
        self.page.get_by_role("link", name=name, exact=True).first.click()

    @property
    def text(self) -> str:
        return self.page.inner_text("main")

    def heading(self) -> str:
        return self.page.inner_text("h1")

    def download(self, name: str) -> bytes:
        with self.page.expect_download() as found:
            self.page.get_by_role("link", name=name).first.click()
        return Path(found.value.path()).read_bytes()

    def faults(self, *rules: str) -> list[str]:
        """What keeps people from reading the page: by axe-core (all its rules), and its width."""
        script = files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
        self.page.evaluate(script)
        options = {"runOnly": list(rules)} if rules else {}
        found = self.page.evaluate("options => axe.run(options)", options)["violations"]
        faults = [f"{fault['id']}: {fault['nodes'][0]['html']}" for fault in found]
        if self.page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            faults.append("wider than the window")
        return faults


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        missing = "no chromium; install Debian's package `chromium`"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    with sync_playwright() as driver:
        # Chromium's own sandbox does not work for root, as which containers run tests.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = driver.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def new_reader(chromium: Browser) -> Iterator[Callable[..., Reader]]:
    contexts = []

    def make(url: str, size: tuple[int, int] = DESKTOP, scheme: str = "light") -> Reader:
        width, height = size
        context = chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme
        )
        contexts.append(context)
        return Reader(context.new_page(), url)

    yield make
    for context in contexts:
        context.close()
