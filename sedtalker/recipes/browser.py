"""A headless browser, for pictures and tests of pages."""

from __future__ import annotations

import shutil
import time
from typing import Any

from sedtalker.errors import MissingExtraError, require


def find_chromium() -> tuple[str, str]:
    """Paths of Chromium and its driver.

    Raises:
        MissingExtraError: selenium, Chromium or its driver is not installed.
    """
    require("selenium", "dev")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        raise MissingExtraError("no chromium with its driver. Install them (Debian: apt-get install chromium-driver)")
    return chromium, driver


def open_browser(*arguments: str, log: bool = False) -> Any:
    """Headless Chromium that draws WebGL on the CPU.

    Args:
        arguments: further ones of the command line, without dashes.
        log: keep the page's messages and requests.

    Raises:
        MissingExtraError: selenium, Chromium or its driver is not installed.
    """
    chromium, driver = find_chromium()
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    shared = (
        "headless=new",
        "no-sandbox",
        "use-angle=swiftshader",
        "enable-unsafe-swiftshader",
        "disable-dev-shm-usage",
    )
    for argument in (*shared, *arguments):
        options.add_argument(f"--{argument}")
    if log:
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(driver))


def wait_until(browser: Any, expression: str, seconds: float = 60.0) -> None:
    """Wait until a JavaScript expression is true. Raises TimeoutError after `seconds`."""
    end = time.monotonic() + seconds
    while not browser.execute_script(f"return {expression}"):
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds:g} s: {expression}")
        time.sleep(0.05)
