"""A gRPC service with every kind of call, whose messages are plain bytes. `service.py VERSION PORT FOLDER`

Each call is written down in FOLDER, so that a test sees what reached the service. What a call does stands in its messages.
"""

import os
import signal
import sys
import threading
import time
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

VERSION, PORT, FOLDER = sys.argv[1], sys.argv[2], sys.argv[3]
LOCK = threading.Lock()


def note(name, text):
    with LOCK, open(os.path.join(FOLDER, name), "a") as file:
        file.write(text + "\n")


def unary(request, context):
    words = request.decode().split(" ")
    if VERSION.startswith("wrong"):
        context.abort(grpc.StatusCode.INTERNAL, "it is wrong")
    if words[0] == "id":
        note("ids", words[1])
    elif words[0] == "deadline":
        return str(context.time_remaining()).encode()
    elif words[0] == "abort":
        context.set_trailing_metadata((("why", "asked for"),))
        context.abort(getattr(grpc.StatusCode, words[1]), "as asked: 100 % → so")
    elif words[0] == "sleep":
        context.add_callback(lambda: note("ended", words[1]))
        note("begun", words[1])
        until = time.monotonic() + 30
        while context.is_active() and time.monotonic() < until:
            time.sleep(0.005)
        note("inactive", words[1])
    elif words[0] == "metadata":
        return "\n".join(f"{key}={value}" for key, value in context.invocation_metadata()).encode()
    elif words[0] == "large":
        return b"x" * int(words[1])
    context.send_initial_metadata((("version", VERSION),))
    context.set_trailing_metadata((("told", "at the end"), ("bits-bin", b"\x00\xff")))
    return request


def server_stream(request, context):
    count, pause = request.decode().split(" ")
    for number in range(int(count)):
        yield f"{number} {VERSION}".encode()
        time.sleep(float(pause))


def client_stream(requests, context):
    count = sum(1 for _ in requests)
    return f"{count} {VERSION}".encode()


def both(requests, context):
    for request in requests:
        if request == b"break":
            context.abort(grpc.StatusCode.DATA_LOSS, "in the middle")
        if request == b"die":
            os.kill(os.getpid(), signal.SIGKILL)
        yield request + b" " + VERSION.encode()


def handler(kind, behaviour):
    same = dict(request_deserializer=None, response_serializer=None)
    return getattr(grpc, kind + "_rpc_method_handler")(behaviour, **same)


def main():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=64), options=(("grpc.so_reuseport", 0),))
    handlers = {
        "Unary": handler("unary_unary", unary),
        "ServerStream": handler("unary_stream", server_stream),
        "ClientStream": handler("stream_unary", client_stream),
        "Both": handler("stream_stream", both),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", handlers),))
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    serving = health_pb2.HealthCheckResponse.NOT_SERVING if VERSION.startswith("sick") else health_pb2.HealthCheckResponse.SERVING
    servicer.set("test.Service", serving)
    signal.signal(signal.SIGTERM, lambda *_: server.stop(5))
    server.add_insecure_port(f"127.0.0.1:{PORT}")
    server.start()
    server.wait_for_termination()


main()
