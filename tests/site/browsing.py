"""Reading a page as a reader without a past does, and what must not happen on the way."""

import contextlib
import time


@contextlib.contextmanager
def opened(browser, address, **how):
    """A page of a reader without a past. Fails where something leaves the loopback address, a script throws, or the
    console complains, as it does of a breach of the policy.
    """
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce", **how})
    wrong = []
    context.on("request", lambda one: one.url.startswith((address, "data:")) or wrong.append(one.url))
    page = context.new_page()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: said.type in ("error", "warning") and wrong.append(said.text))
    page.set_default_timeout(30_000)
    page.wrong = wrong
    yield page
    context.close()
    assert wrong == []


def until(page, expression, seconds=30):
    """Wait for what the browser's `wait_for_function` may not ask again and again: the policy forbids a page `eval`."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(50)
