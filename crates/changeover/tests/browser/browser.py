"""Chromium over the DevTools protocol, as much of it as the page's test needs."""

import base64, json, os, subprocess, sys, tempfile, time, urllib.request

import websocket

DEADLINE_S = 20


class Browser:
    def __init__(self, port):
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.process = subprocess.Popen(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
             "--disable-background-networking", "--hide-scrollbars", f"--remote-debugging-port={port}",
             "--remote-allow-origins=*", f"--user-data-dir={self.folder.name}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        targets = until("the browser answers", lambda: pages(port))
        self.socket = websocket.create_connection(targets[0]["webSocketDebuggerUrl"], timeout=DEADLINE_S, suppress_origin=True)
        self.number, self.complaints, self.scripted = 0, [], True
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")
        # A violated policy is an error also where the console does not show it.
        self.ask("Page.addScriptToEvaluateOnNewDocument", source="addEventListener('securitypolicyviolation', "
                 "(event) => console.error('policy', event.violatedDirective, event.blockedURI))")

    def ask(self, method, **params):
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == self.number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return message["result"]
            self.note(message)

    def note(self, message):
        method, params = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"])[:500])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(" ".join(str(arg.get("value", arg.get("description"))) for arg in params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    def run(self, script):
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def until(self, what, script):
        def holds():
            try:
                return self.run(script)
            except RuntimeError:
                return None  # between two pages
        try:
            return until(what, holds)
        except TimeoutError:
            print(self.run("document.body.innerText"), file=sys.stderr)
            raise

    def script(self, allowed):
        self.scripted = allowed
        self.ask("Emulation.setScriptExecutionDisabled", value=not allowed)

    def go(self, url):
        self.ask("Page.navigate", url=url)
        self.until(f"{url} is loaded", "document.readyState === 'complete' && location.href !== 'about:blank'")

    def press(self, selector):
        """As a finger does: in the middle of what is to be seen."""
        box = self.until(f"{selector} is there", f"""(() => {{
            const found = document.querySelector({json.dumps(selector)});
            if (!found) return null;
            found.scrollIntoView({{ block: "center", behavior: "instant" }});
            const box = found.getBoundingClientRect();
            const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
            const top = document.elementFromPoint(x, y);
            return found === top || found.contains(top) ? {{ x, y }} : null;
        }})()""")
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, x=box["x"], y=box["y"], button="left", clickCount=1)

    def type(self, text):
        self.ask("Input.insertText", text=text)

    def key(self, name, code):
        for kind in ("keyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code, text="\r" if name == "Enter" else "")

    def look(self, path, width, dark, full=True):
        """A screenshot; what is wider than the window is a mistake."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=780, deviceScaleFactor=1, mobile=width < 700)
        scheme = "dark" if dark else "light"
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        if self.scripted:  # else no frame is ever told of
            self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        wide = self.run("document.documentElement.scrollWidth")
        picture = self.ask("Page.captureScreenshot", captureBeyondViewport=full)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(base64.b64decode(picture["data"]))
        assert wide <= width, f"{path}: {wide} px wide in a window of {width}"

    def looks(self, folder, name, full=True):
        for width in (360, 1400):
            for dark in (False, True):
                self.look(f"{folder}/{name}-{width}-{'dark' if dark else 'light'}.png", width, dark, full)

    def close(self):
        self.process.terminate()
        self.process.wait()
        self.socket.close()
        self.folder.cleanup()


def pages(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=1) as answer:
            return [it for it in json.load(answer) if it["type"] == "page"]
    except OSError:
        return None


def until(what, holds):
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        found = holds()
        if found:
            return found
        time.sleep(0.02)
    raise TimeoutError(f"not within {DEADLINE_S} s: {what}")
