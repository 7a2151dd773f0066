"""One JupyterLab for all tests that look at notebooks in it."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import pytest
from browser import driven
from labserver import end_kernels, served

WAIT = 90_000  # ms: on a machine that has other work, too


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """What stands in the page where a test failed, beside its error."""
    report = yield
    page = getattr(item, "funcargs", {}).get("page")
    if report.when == "call" and report.failed and page:
        report.sections.append(("page", page.locator("body").inner_text()))
    return report


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a JupyterLab that serves every test's `tmp_path` (mark them `chromium`)."""
    pytest.importorskip("jupyterlab")
    own = tmp_path_factory.mktemp("lab")
    with served(tmp_path_factory.getbasetemp(), own) as address:
        yield address


@pytest.fixture
def page(lab: str) -> Iterator[Any]:
    """A page of a browser of this test; the kernels that it started end with it."""
    with driven() as browser:
        made = browser.new_page(viewport={"width": 1300, "height": 900})
        made.set_default_timeout(WAIT)
        yield made
    end_kernels(lab)
