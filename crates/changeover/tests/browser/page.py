"""Drives the real page in Chromium: `page.py URL TOKEN DEVTOOLS_PORT FOLDER`. A release of `web` to v2 waits for a person."""

import sys

from browser import Browser

url, token, port, pictures = sys.argv[1:]
browser = Browser(port)
try:
    browser.go(f"{url}/services/web")
    browser.until("the form is shown instead", "location.pathname === '/login' && !!document.querySelector('[name=token]')")
    browser.looks(pictures, "sign-in")
    browser.run("document.querySelector('[name=token]').focus()")
    browser.type(token)
    browser.key("Enter", 13)
    browser.until("signed in, and where we wanted to go", "location.pathname === '/services/web'")
    assert token not in browser.run("document.cookie + location.href + document.documentElement.outerHTML")
    browser.until("charts are drawn", "document.querySelectorAll('.plot.drawn canvas').length >= 2")
    assert browser.run("document.title").startswith("Waits for you"), browser.run("document.title")
    browser.looks(pictures, "waits")

    # Without script: the question opens and closes by its address, and the page is whole.
    browser.script(False)
    browser.go(f"{url}/services/web")
    browser.until("charts are drawn by the server", "document.querySelectorAll('.plot svg path').length > 4")
    browser.press("a[href='#confirm-promote']")
    browser.until("it asks", "getComputedStyle(document.querySelector('#confirm-promote')).display === 'flex'")
    browser.looks(pictures, "without-script", full=False)
    browser.press("#confirm-promote .pair a")
    browser.until("it is closed", "getComputedStyle(document.querySelector('#confirm-promote')).display === 'none'")
    browser.script(True)
    browser.go(f"{url}/services/web?again")
    browser.until("charts are drawn", "document.querySelectorAll('.plot.drawn canvas').length >= 2")

    # A confirmation: Escape closes it and gives the focus back, the keyboard opens it again.
    browser.press("a[href='#confirm-promote']")
    browser.until("it asks", "document.querySelector('#confirm-promote').open")
    browser.looks(pictures, "confirm", full=False)
    browser.key("Escape", 27)
    browser.until("it is closed", "!document.querySelector('dialog[open]')")
    assert browser.run("document.activeElement.hash") == "#confirm-promote"
    browser.key("Enter", 13)
    browser.until("it asks again", "document.querySelector('#confirm-promote').open")
    browser.press("#confirm-promote button")
    browser.until("it says what was done", "document.querySelector('#said').textContent.includes('Promoted in')")

    # From here on nothing is loaded: what changes comes by itself.
    browser.run("window.same = true")
    browser.until("the release ends on the open page", "document.querySelector('#verdict').textContent.includes('v2 took over from v1')")
    browser.until("the tab says so", "document.title.startsWith('Promoted')")
    assert browser.run("window.same"), "the page was loaded again"
    browser.looks(pictures, "promoted")

    browser.press("a[href='#confirm-rollback']")
    browser.press("#confirm-rollback button")
    browser.until("it is taken back", "document.querySelector('#said').textContent.includes('v1 serves everyone')")
    browser.go(f"{url}/services/web/releases/2")
    browser.until("a page of its own", "document.querySelector('.crumbs').textContent.includes('release 2')")
    browser.go(f"{url}/history")
    browser.until("the history", "document.querySelectorAll('tbody tr').length === 3")
    browser.looks(pictures, "history")
    browser.go(f"{url}/")
    browser.until("it is live", "document.documentElement.dataset.seq > 1")
    browser.looks(pictures, "services")
    browser.press(".leave button")
    browser.until("signed out", "location.pathname === '/login'")
    assert not browser.complaints, browser.complaints
finally:
    browser.close()
