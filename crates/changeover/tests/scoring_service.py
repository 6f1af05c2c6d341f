"""A small web service with a flag in its code, asked over OFREP by OpenFeature's own SDK.

Usage: scoring_service.py PORT OFREP_PORT BAD_SHARE
The new branch fails for BAD_SHARE of its requests.
"""

import random
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext

port, ofrep, bad = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
api.set_provider_and_wait(OFREPProvider(f"http://127.0.0.1:{ofrep}"))
flags = api.get_client()


class Scoring(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        status = 200
        if self.path != "/healthz":
            user = EvaluationContext(self.headers["x-user"], {"requestId": self.headers["x-request-id"]})
            if flags.get_boolean_value("new-scoring-algorithm", False, user) and random.random() < bad:
                status = 500
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", port), Scoring).serve_forever()
