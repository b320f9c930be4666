"""The page in a browser: it draws, colors, tells, sorts and searches, and asks for nothing.

A Chromium of the system and its driver are used where there are some. axe-core looks over
the page for people who cannot see.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import time
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

import batchcorr as bc

CHROMIUM = next(
    filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])),
    None,
)
DRIVER = shutil.which("chromedriver")
WIDTHS = {"desktop": (1280, 900), "phone": (390, 800)}
EVIL = (
    """</script><script>window.hurt = 1</script><img src=x onerror="hurt=1">'&quot;"""
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="there is no Chromium with a driver"
    ),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        f"user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(f"--{argument}")
    options.set_capability(
        "goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"}
    )
    try:
        driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    except WebDriverException as error:
        pytest.skip(f"Chromium does not start: {error.msg.splitlines()[0]}")
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def hostile():
    """60 batches with names that would run, turn text around, or never end."""
    rng = np.random.default_rng(0)
    n = 240
    names = [EVIL, "🧬 émile", "שלום \u202eabc", "x" * 300, *map(str, range(56))]
    obs = pd.DataFrame(
        {
            "batch": np.repeat(names, 4),
            EVIL: np.resize(["{{ 7*7 }}", "<b>b</b>", "{{ 7*7 }}", "<b>b</b>"], n),
            "age": np.where(rng.random(n) < 0.1, np.nan, rng.normal(50, 9, n)),
        },
        index=[f"{i} {EVIL}" for i in range(n)],
    )
    x = rng.normal(8, 1, (n, 130)) + rng.normal(0, 1, 60)[np.repeat(range(60), 4), None]
    x[5, 3] = np.nan
    var = pd.DataFrame(index=[f"gene {k} {EVIL}"[: 300 - k] for k in range(130)])
    return anndata.AnnData(x, obs, var)


@pytest.fixture(scope="module")
def page(hostile, tmp_path_factory):
    """A page of hostile data, and the table it should show."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    bc.pp.combat(hostile, "batch", key_added="corrected")
    bc.report(hostile, path, test=EVIL, title=EVIL)
    return path


@pytest.fixture(params=WIDTHS)
def opened(browser, page, request):
    width, height = WIDTHS[request.param]
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get("about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(page.as_uri())
    wait_for(browser, "document.body.dataset.drawn !== undefined")
    yield browser
    assert complaints(browser) == []


def complaints(browser):
    """Errors of the console, requests that left, and scripts that should not run."""
    said = [line["message"] for line in browser.get_log("browser")]
    events = [
        json.loads(e["message"])["message"] for e in browser.get_log("performance")
    ]
    asked = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    left = [url for url in asked if re.match("(https?|wss?|ftp)://", url)]
    hurt = ["hurt"] if browser.execute_script("return window.hurt === 1") else []
    return said + left + hurt


def wait_for(browser, condition):
    for _ in range(200):
        if browser.execute_script(f"return {condition}"):
            return
        time.sleep(0.05)
    pytest.fail(f"never came true: {condition}")


def find(browser, selector):
    return browser.find_elements("css selector", selector)


def pixels(browser):
    """What the first picture looks like."""
    return browser.execute_script(
        "return document.querySelector('canvas.plot').toDataURL()"
    )


def test_nothing_is_wider_than_the_window(opened):
    assert opened.execute_script(
        "return document.documentElement.scrollWidth <= innerWidth"
    )
    assert opened.title.startswith("</script><script>window.hurt")


def test_colors_follow_the_column_and_the_legend(opened):
    by_batch = pixels(opened)
    assert len(find(opened, "#legend button")) == 60
    find(opened, "#legend button")[3].click()
    assert find(opened, "#legend button")[3].get_attribute("aria-pressed") == "true"
    assert pixels(opened) != by_batch
    find(opened, "#legend button")[3].click()
    assert pixels(opened) == by_batch
    find(opened, "#color option")[2].click()
    wait_for(opened, "document.body.dataset.drawn === 'age'")
    assert len(find(opened, "#legend button")) == 0
    assert pixels(opened) != by_batch


def test_a_sample_is_told_by_pointing_and_by_keys(opened, hostile):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    canvas = find(opened, "canvas.plot")[1]
    opened.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    canvas.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    told = "document.getElementById('shown').textContent"
    wait_for(opened, f"{told}.includes('batch')")
    text = opened.execute_script(f"return {told}")
    assert text.startswith(hostile.obs_names[1][:70])
    assert "age: " in text
    box, told = canvas.rect, "document.getElementById('hover')"
    for k in range(200):
        at = (np.array([k % 20, k // 20]) + 0.5) / [20, 10] - 0.5
        x, y = (at * [box["width"] * 0.9, box["height"] * 0.9]).astype(int)
        ActionChains(opened, duration=0).move_to_element_with_offset(
            canvas, int(x), int(y)
        ).perform()
        time.sleep(0.05)
        if opened.execute_script(f"return !{told}.hidden"):
            break
    assert "batch: " in opened.execute_script(f"return {told}.textContent")


def test_features_are_sorted_searched_and_leafed_through(opened):
    def names():
        return [cell.text for cell in find(opened, "#feature-table tbody th")]

    def numbers(place):
        cells = find(opened, f"#feature-table tbody td:nth-child({place})")
        return [float(c.text.replace("−", "-")) for c in cells if c.text != "–"]

    first = names()
    assert len(first) == 20
    find(opened, "#next")[0].click()
    assert not set(names()) & set(first)
    headers = find(opened, "#feature-table thead button")
    mean = [h.text for h in headers].index("mean") + 1
    headers[mean - 1].click()
    falling = numbers(mean)
    assert falling == sorted(falling, reverse=True)
    headers[mean - 1].click()
    rising = numbers(mean)
    assert rising == sorted(rising) != falling[::-1]
    header = find(opened, "#feature-table thead th")[mean - 1]
    assert header.get_attribute("aria-sort") == "ascending"
    find(opened, "#search")[0].send_keys("no such gene")
    assert names() == []
    find(opened, "#search")[0].clear()
    find(opened, "#search")[0].send_keys("GENE 77")
    assert [name[:7] for name in names()] == ["gene 77"]
    assert find(opened, "#page")[0].text == "1 to 1 of 1"


def test_methods_are_copied(opened):
    find(opened, "#copy")[0].click()
    wait_for(opened, "document.getElementById('copied').textContent !== ''")


def test_it_prints(opened):
    paper = {"printBackground": True, "paperWidth": 8.27, "paperHeight": 11.69}
    printed = opened.execute_cdp_cmd("Page.printToPDF", paper)["data"]
    assert base64.b64decode(printed).startswith(b"%PDF")


def test_it_can_be_read_without_seeing_it(opened):
    axe = pytest.importorskip("axe_core_python", reason="axe-core is not installed")
    opened.execute_script(Path(axe.__path__[0], "axe.min.js").read_text("utf-8"))
    found = opened.execute_async_script(
        "axe.run().then((all) => arguments[0](all.violations.map("
        "(v) => `${v.impact}: ${v.help}: ${v.nodes[0].html}`)))"
    )
    assert found == []
