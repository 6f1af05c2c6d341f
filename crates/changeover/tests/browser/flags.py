"""Drives the page of flags in Chromium: `flags.py URL TOKEN DEVTOOLS_PORT SECOND_DEVTOOLS_PORT FOLDER`. Two browsers: one acts, one watches."""

import sys

from browser import Browser

url, token, port, second, pictures = sys.argv[1:]


def sign_in(browser, path):
    browser.go(f"{url}{path}")
    browser.until("the form", "location.pathname === '/login' && !!document.querySelector('[name=token]')")
    browser.run("document.querySelector('[name=token]').focus()")
    browser.type(token)
    browser.key("Enter", 13)
    browser.until("signed in, and where we wanted to go", f"location.pathname + location.search === '{path}'")
    browser.until("it is live", "document.documentElement.dataset.seq > 0")


one, other = Browser(port), Browser(second)
try:
    sign_in(one, "/flags")
    one.until("it is live", "document.documentElement.dataset.seq > 1")
    one.until("the old one has expired", "document.querySelector('#flags').textContent.includes('expired')")
    one.until("the refused file is told", "document.querySelector('#problems').textContent.includes('flags.json:1:')")
    one.looks(pictures, "flags")
    sign_in(other, "/flags/flag?key=new-checkout")
    other.run("window.same = true")

    # Switched off by one, seen by the other, which loads nothing.
    one.press("a[href='/flags/flag?key=new-checkout']")
    one.until("the flag", "document.querySelector('h1').textContent === 'new-checkout'")
    one.looks(pictures, "flag")
    one.press("a[href='#confirm-off-0']")
    one.until("it asks", "document.querySelector('#confirm-off-0').open")
    one.looks(pictures, "flag-confirm", full=False)
    one.run("document.querySelector('#confirm-off-0 [name=why]').focus()")
    one.type("it is slow")
    one.press("#confirm-off-0 button")
    one.until("it says what was done", "document.querySelector('#said').textContent.includes('new-checkout is off in production')")
    other.until("the other sees it", "!!document.querySelector('#environments a[href$=on-0]')")
    other.until("and why", "document.querySelector('#history').textContent.includes('it is slow')")

    # Back again, from the history of the other.
    other.press("#history tbody tr a.btn")
    other.until("it asks", "!!document.querySelector('dialog[open]')")
    assert other.run("window.same"), "the page was loaded again"
    other.press("dialog[open] button")
    other.until("it says what was done", "document.querySelector('#said').textContent.includes('as it was before change')")
    one.until("the first one sees it", "!!document.querySelector('#confirm-off-0')")

    one.go(f"{url}/flags/flag?key=new-search")
    one.until("the rollout", "document.querySelectorAll('.track li').length === 3")
    one.until("users were seen", "/of [0-9]{2,} users/.test(document.querySelector('.trial tbody').textContent)")
    one.looks(pictures, "flag-rollout")
    # A question that is open while somebody else changes the flag says so.
    one.press("a[href='#confirm-promote-0']")
    one.until("it asks", "document.querySelector('#confirm-promote-0').open")
    other.go(f"{url}/flags/flag?key=new-search")
    other.press("a[href='#confirm-pause-0']")
    other.press("#confirm-pause-0 button")
    one.until("it says that it is outdated", "!document.querySelector('#confirm-promote-0 .moved').hidden")
    one.key("Escape", 27)
    one.until("it is paused", "document.querySelector('.trial').textContent.includes('paused by ana')")
    one.press("a[href='#confirm-end-0']")
    one.press("#confirm-end-0 button")
    one.until("it is over", "document.querySelector('.trial').textContent.includes('aborted')")

    one.go(f"{url}/flags/flag?key=button-colour")
    one.until("the experiment", "document.querySelectorAll('.interval').length === 2")
    one.looks(pictures, "flag-experiment")
    one.go(f"{url}/flags/debt")
    one.until("it is live", "document.documentElement.dataset.seq > 1")
    one.looks(pictures, "flags-debt")

    # Without script: the question opens by its address, the form is a form.
    one.script(False)
    one.go(f"{url}/flags/flag?key=kill-search")
    one.press("a[href='#confirm-on-0']")
    one.until("it asks", "getComputedStyle(document.querySelector('#confirm-on-0')).display === 'flex'")
    one.press("#confirm-on-0 button")
    one.until("it says what was done", "document.querySelector('#said').textContent.includes('kill-search is on in production')")
    one.script(True)
    assert not one.complaints and not other.complaints, (one.complaints, other.complaints)
finally:
    one.close()
    other.close()
