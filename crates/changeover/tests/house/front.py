"""Before Pebble 2.4, which cannot say when to renew (RFC 9773) and knows no limits: adds both. Everything else passes as it is.

front.py PORT PEBBLE'S_PORT FOLDER: `front.json` in the folder may say
  window: [seconds from now, seconds from now]   when to renew
  refuse: seconds                                new orders are answered with 429 and `Retry-After`
  replaces: true                                 orders may say what they replace; else that is refused
What was asked is appended to `front.log`.
"""

import base64
import datetime
import http.client
import http.server
import json
import pathlib
import ssl
import sys

PORT, PEBBLE, FOLDER = int(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])
ORDERS = "/order-plz"
RENEWAL = "/renewal"


def said():
    return json.loads((FOLDER / "front.json").read_text())


def moment(offset):
    now = datetime.datetime.now(datetime.timezone.utc)
    return (now + datetime.timedelta(seconds=offset)).strftime("%Y-%m-%dT%H:%M:%SZ")


class Front(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def note(self, text):
        with open(FOLDER / "front.log", "a") as log:
            log.write(text + "\n")

    def answer(self, status, body, fields):
        self.send_response_only(status)
        for name, value in fields:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def ask_pebble(self, body):
        context = ssl.create_default_context(cafile=FOLDER / "pebble.pem")
        pebble = http.client.HTTPSConnection("127.0.0.1", PEBBLE, context=context)
        # With the host as it was asked: Pebble's answers lead here.
        pebble.request(self.command, self.path, body, dict(self.headers))
        answer = pebble.getresponse()
        text = answer.read()
        hop = {"content-length", "connection", "transfer-encoding"}
        fields = [(name, value) for name, value in answer.getheaders() if name.lower() not in hop]
        pebble.close()
        return answer.status, text, fields

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.startswith(RENEWAL):
            self.note("window " + self.path[len(RENEWAL) + 1 :])
            window = said()["window"]
            info = {"suggestedWindow": {"start": moment(window[0]), "end": moment(window[1])}}
            return self.answer(200, json.dumps(info).encode(), [("Retry-After", "21600")])
        replaced = None
        if self.path == ORDERS:
            payload = json.loads(body)["payload"]
            order = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
            replaced = order.get("replaces")
            self.note("order" + (" replaces " + replaced if replaced else ""))
            if said().get("refuse"):
                problem = {"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many orders", "status": 429}
                fields = [("Retry-After", str(said()["refuse"])), ("Content-Type", "application/problem+json")]
                return self.answer(429, json.dumps(problem).encode(), fields)
            if replaced and not said().get("replaces"):
                problem = {"type": "urn:ietf:params:acme:error:alreadyReplaced", "detail": "it was replaced", "status": 409}
                return self.answer(409, json.dumps(problem).encode(), [("Content-Type", "application/problem+json")])
        status, text, fields = self.ask_pebble(body or None)
        if self.path == "/dir":
            directory = json.loads(text)
            directory["renewalInfo"] = f"https://{self.headers['Host']}{RENEWAL}"
            text = json.dumps(directory).encode()
        elif replaced:
            text = json.dumps({**json.loads(text), "replaces": replaced}).encode()
        self.answer(status, text, fields)

    do_POST = do_HEAD = do_GET


server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Front)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(FOLDER / "pebble.pem", FOLDER / "pebble.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
