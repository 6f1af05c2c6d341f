"""An unmodified OpenFeature client: `client.py rpc|in-process|ofrep HOST PORT`.

Prints what it reads as one line of JSON, then, once the value of `pushed` has changed, `changed`.
"""

import json
import sys
import threading
import time

from openfeature import api
from openfeature.contrib.provider.flagd import FlagdProvider
from openfeature.contrib.provider.flagd.config import ResolverType
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import ProviderEvent

kind, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
changed = threading.Event()
if kind == "ofrep":
    provider = OFREPProvider(f"http://{host}:{port}")
else:
    resolver = ResolverType.RPC if kind == "rpc" else ResolverType.IN_PROCESS
    provider = FlagdProvider(host=host, port=port, resolver_type=resolver, deadline_ms=10_000)
api.set_provider_and_wait(provider)
client = api.get_client()
ana = EvaluationContext("ana", {"email": "ana@example.com", "age": 40})
nobody = EvaluationContext()


def said(details):
    return [details.value, details.variant, str(details.reason), details.error_code and str(details.error_code.value)]


seen = {
    # First, because rpc keeps static answers whatever type is asked for next.
    "mismatch": said(client.get_boolean_details("string", True, ana)),
    "bool": said(client.get_boolean_details("bool", False, ana)),
    "string": said(client.get_string_details("string", "code", ana)),
    "int": said(client.get_integer_details("int", -1, ana)),
    "float": said(client.get_float_details("float", -1.0, ana)),
    "object": said(client.get_object_details("object", {}, ana)),
    "targeted": said(client.get_string_details("targeted", "code", ana)),
    "slashes": said(client.get_boolean_details("a b/c", False, ana)),
    "disabled": said(client.get_boolean_details("disabled", True, ana)),
    "no default": said(client.get_string_details("no-default", "code", ana)),
    "unknown": said(client.get_boolean_details("no-such-flag", True, ana)),
    "share": said(client.get_string_details("share", "code", ana)),
    "share of nobody": said(client.get_string_details("share", "code", nobody)),
}
print(json.dumps(seen), flush=True)

if kind != "ofrep":
    client.add_handler(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED, lambda _: changed.set())
deadline = time.monotonic() + 20
while client.get_string_value("pushed", "code", ana) != "new":
    assert time.monotonic() < deadline, "the change did not come"
    if kind == "ofrep":
        time.sleep(0.01)
    else:
        changed.wait(0.2)
        changed.clear()
print("changed", flush=True)
api.shutdown()
