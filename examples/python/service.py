"""A small web service: answers with its version; SIGTERM lets running requests finish. Standard library only."""

import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = int(os.environ["PORT"])
VERSION = os.environ.get("CHANGEOVER_VERSION", "dev")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An idle connection is closed after this, so that the end does not wait for it.
    timeout = 5

    def do_GET(self):
        if self.path == "/healthz":
            self.answer(200, "ok\n")
        elif self.path == "/":
            self.answer(200, f"hello from python {VERSION}\n")
        else:
            self.answer(404, "not found\n")

    def answer(self, status, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("content-type", "text/plain; charset=utf-8")
        self.send_header("content-length", str(len(body)))
        self.send_header("x-version", VERSION)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        if self.path != "/healthz":
            print(f"{VERSION}: {format % args}", flush=True)


class Server(ThreadingHTTPServer):
    # `server_close` waits for the threads of running requests.
    daemon_threads = False
    request_queue_size = 128


def main():
    server = Server(("127.0.0.1", PORT), Handler)
    # `shutdown` waits for the loop below to end, hence a thread of its own.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"python {VERSION} listens on 127.0.0.1:{PORT}", flush=True)
    server.serve_forever(poll_interval=0.1)
    server.server_close()
    print(f"python {VERSION} has finished", flush=True)


main()
