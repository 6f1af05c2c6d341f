"""Clients of `service.py`, with grpcio. `client.py interop ADDRESS FOLDER`, `client.py load ADDRESS` until standard input ends."""

import itertools
import json
import os
import sys
import threading
import time

import grpc

ADDRESS = sys.argv[2]


class Stub:
    def __init__(self, channel):
        self.unary = channel.unary_unary("/test.Service/Unary")
        self.server_stream = channel.unary_stream("/test.Service/ServerStream")
        self.client_stream = channel.stream_unary("/test.Service/ClientStream")
        self.both = channel.stream_stream("/test.Service/Both")


def channel():
    # A connection of its own, not one that is shared within the process. Without a policy, grpcio sends again only what was not sent at
    # all, or was not seen as the server said; that belongs to a GOAWAY.
    return grpc.insecure_channel(ADDRESS, options=(("grpc.use_local_subchannel_pool", 1),))


def expect(condition, text):
    if not condition:
        raise AssertionError(text)


def eventually(condition, text):
    until = time.monotonic() + 10
    while not condition():
        expect(time.monotonic() < until, f"not within 10 s: {text}")
        time.sleep(0.01)


def noted(name):
    try:
        with open(os.path.join(sys.argv[3], name)) as file:
            return file.read().split()
    except FileNotFoundError:
        return []


def refused(call):
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("it was to fail")


def interop():
    stub = Stub(channel())

    answer, call = stub.unary.with_call(b"hello", timeout=10)
    expect(answer == b"hello", answer)
    initial, trailing = dict(call.initial_metadata()), dict(call.trailing_metadata())
    expect(initial["version"] == "v1", initial)
    expect(trailing == {"told": "at the end", "bits-bin": b"\x00\xff"}, trailing)
    print("unary, with metadata before and after")

    answer = stub.unary(b"metadata", metadata=(("mine", "1"), ("raw-bin", b"\x01\xfe")), timeout=10).decode()
    expect("mine=1" in answer and "raw-bin=b'\\x01\\xfe'" in answer, answer)
    print("metadata reach the service")

    expect(len(stub.unary(b"large 3000000", timeout=20)) == 3_000_000, "a large answer")
    large = b"id " + b"7" * 3_000_000
    expect(stub.unary(large, timeout=20) == large, "a large message both ways")
    expect(stub.unary(b"", timeout=10) == b"", "an empty message")
    print("large and empty messages")

    expect([m.decode() for m in stub.server_stream(b"5 0", timeout=10)] == [f"{n} v1" for n in range(5)], "server stream")
    expect(list(stub.server_stream(b"0 0", timeout=10)) == [], "a stream without a message")
    expect(stub.client_stream(iter([b"x"] * 1000), timeout=10) == b"1000 v1", "client stream")
    expect(stub.client_stream(iter([]), timeout=10) == b"0 v1", "a client stream without a message")
    print("streams of either side")

    # One waits for the other: a proxy that gathers would not end.
    turn, heard = threading.Semaphore(1), []

    def questions():
        for number in range(20):
            turn.acquire()
            yield str(number).encode()

    for message in stub.both(questions(), timeout=10):
        heard.append(message.decode())
        turn.release()
    expect(heard == [f"{n} v1" for n in range(20)], heard)
    print("both at once, in turns")

    error = refused(lambda: stub.unary(b"abort NOT_FOUND", timeout=10))
    expect((error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "as asked: 100 % → so"), error)
    expect(dict(error.trailing_metadata())["why"] == "asked for", error.trailing_metadata())
    print("a status without a message (Trailers-Only)")

    heard = []
    error = refused(lambda: heard.extend(stub.both(iter([b"a", b"break"]), timeout=10)))
    expect(error.code() == grpc.StatusCode.DATA_LOSS and heard == [b"a v1"], error)
    print("a status after messages")

    left = float(stub.unary(b"deadline", timeout=7))
    # grpcio says a little more than it waits.
    expect(5 < left < 7.1, left)
    expect(stub.unary(b"deadline") in (b"None",) or float(stub.unary(b"deadline")) > 1e6, "no deadline")
    error = refused(lambda: stub.unary(b"sleep late", timeout=0.3))
    expect(error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error)
    eventually(lambda: "late" in noted("inactive"), "the service learns of the deadline")
    print("deadlines reach the service")

    future = stub.unary.future(b"sleep cancelled", timeout=30)
    eventually(lambda: "cancelled" in noted("begun"), "the call runs")
    future.cancel()
    eventually(lambda: "cancelled" in noted("inactive"), "the service learns that nobody waits")
    stream = stub.server_stream(b"1000 0.01", timeout=30)
    next(stream)
    stream.cancel()
    print("a cancel reaches the service")

    error = refused(lambda: channel().unary_unary("/test.Service/Nothing")(b"", timeout=10))
    expect(error.code() == grpc.StatusCode.UNIMPLEMENTED, error)
    print("a method that is not there")


def load():
    stop, ids = threading.Event(), itertools.count()
    lock, done, lost, sent = threading.Lock(), {"unary": 0, "server": 0, "client": 0, "both": 0}, [], []

    def loop(kind, once):
        stub = Stub(channel())
        while not stop.is_set():
            try:
                once(stub)
            except (grpc.RpcError, AssertionError) as error:
                with lock:
                    lost.append(f"{kind}: {error}")
            with lock:
                done[kind] += 1

    def unary(stub):
        number = next(ids)
        with lock:
            sent.append(number)
        expect(stub.unary(f"id {number}".encode(), timeout=20) == f"id {number}".encode(), "its own answer")

    def server(stub):
        heard = [message.decode().split()[0] for message in stub.server_stream(b"20 0.01", timeout=20)]
        expect(heard == [str(n) for n in range(20)], heard)

    def client(stub):
        def slow():
            for _ in range(10):
                yield b"x"
                time.sleep(0.01)

        expect(stub.client_stream(slow(), timeout=20).split()[0] == b"10", "all of its messages")

    def both(stub):
        turn, heard = threading.Semaphore(1), 0

        def questions():
            for number in range(20):
                turn.acquire()
                yield str(number).encode()
                time.sleep(0.01)

        for message in stub.both(questions(), timeout=20):
            expect(message.split()[0] == str(heard).encode(), message)
            heard += 1
            turn.release()
        expect(heard == 20, heard)

    kinds = [("unary", unary)] * 3 + [("server", server), ("client", client), ("both", both)]
    threads = [threading.Thread(target=loop, args=kind) for kind in kinds]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()
    print(json.dumps({"done": done, "lost": lost, "sent": sent}))


{"interop": interop, "load": load}[sys.argv[1]]()
