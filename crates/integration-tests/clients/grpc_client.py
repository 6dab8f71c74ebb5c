"""A client of grpcio, unmodified.

Usage: grpc_client.py STORY TARGET TOKEN|- CA|- [ARGUMENT]
"""

import itertools
import sys
import threading
import time
from concurrent import futures

import grpc

story, target, token, ca, *arguments = sys.argv[1:]
LARGE = [("grpc.max_receive_message_length", 64 << 20)]


def open_channel():
    if ca == "-":
        return grpc.insecure_channel(target, options=LARGE)
    with open(ca, "rb") as file:
        return grpc.secure_channel(target, grpc.ssl_channel_credentials(file.read()), LARGE)


channel = open_channel()
MINE = () if token == "-" else (("authorization", f"Bearer {token}"),)


def path(method):
    return f"/echo.Echo/{method}"


def unary(method, request=b"", metadata=(), **more):
    call = channel.unary_unary(path(method))
    return call.with_call(request, metadata=(*MINE, *metadata), wait_for_ready=False, **more)


def code_of(method, request=b"", **more):
    try:
        unary(method, request, **more)
    except grpc.RpcError as error:
        return error
    raise AssertionError(f"{method} went well")


def kinds():
    answer, call = unary("Unary", b"hello", [("x-mine", "1")])
    assert answer == b"hello"
    assert dict(call.initial_metadata())["x-initial"] == "1"
    assert dict(call.initial_metadata())["x-request-id"]
    assert dict(call.trailing_metadata())["x-trailing-bin"] == bytes(range(256))
    assert unary("Unary", b"")[0] == b""

    numbers = channel.unary_stream(path("Stream"))(b"1000", metadata=MINE)
    assert [int(n) for n in numbers] == list(range(1000))

    pieces = (b"x" * n for n in range(1000))
    assert channel.stream_unary(path("Collect"))(pieces, metadata=MINE) == b"1000 499500"

    # Each message is answered before the next one is sent.
    answered = threading.Semaphore(1)

    def turns():
        for n in range(100):
            assert answered.acquire(timeout=20)
            yield f"turn {n}".encode()

    for n, answer in enumerate(channel.stream_stream(path("Chat"))(turns(), metadata=MINE)):
        assert answer == f"TURN {n}".encode()
        answered.release()
    assert n == 99

    error = code_of("Fail")
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert error.details() == "nein – 100 %"
    assert dict(error.trailing_metadata())["x-why"] == "asked"
    assert code_of("Nothing").code() == grpc.StatusCode.UNIMPLEMENTED

    broken = channel.unary_stream(path("BreakOff"))(b"", metadata=MINE)
    assert next(broken) == b"first"
    try:
        next(broken)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.DATA_LOSS
    print("all four kinds")


def sizes():
    large = bytes(range(256)) * (64 << 10)
    assert unary("Unary", large)[0] == large
    assert code_of("Unary", b"x" * (33 << 20)).code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    print("16 MiB there and back")


def many():
    barrier = threading.Barrier(100)

    def chat(n):
        def say():
            yield b"first"
            # All of them are open at once.
            barrier.wait(30)
            yield f"second {n}".encode()

        answers = channel.stream_stream(path("Chat"))(say(), metadata=MINE)
        return list(answers) == [b"FIRST", f"SECOND {n}".encode()]

    with futures.ThreadPoolExecutor(100) as pool:
        assert all(pool.map(chat, range(100)))
    print("100 streams at once")


def deadlines():
    def left(**more):
        lines = unary("Told", **more)[0].decode().splitlines()
        told = dict(line.split(": ", 1) for line in lines)
        assert told["user-agent"].startswith("grpc-python"), told
        return told

    # grpcio rounds up what it says.
    near = float(left(timeout=20)["left"])
    assert 10 < near < 21, near
    # Longer than the head may take: the call may go on behind it.
    far = float(left(timeout=1000)["left"])
    assert 900 < far < 1020, far
    # Who says nothing has for ever.
    assert float(left()["left"]) > 1_000_000
    assert int(left(timeout=20)["x-crosstown-timeout"]) <= 20_000
    began = time.monotonic()
    error = code_of("Sleep", b"60", timeout=0.3)
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - began < 20
    assert unary("WasCancelled")[0] == b"yes"
    # The route's own time ends it for who has more.
    error = code_of("Sleep", b"60", timeout=1000)
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert dict(error.initial_metadata() + error.trailing_metadata())["x-crosstown-code"] == (
        "upstream_timeout"
    )
    assert unary("WasCancelled")[0] == b"yes"
    print("deadlines shrink")


def cancels():
    call = channel.unary_unary(path("Sleep")).future(b"60", metadata=MINE)
    time.sleep(0.5)
    call.cancel()
    assert unary("WasCancelled")[0] == b"yes"
    print("a cancelled call is cancelled")


def refusal():
    expected, code = arguments
    error = code_of("Unary", b"x")
    said = dict((*error.initial_metadata(), *error.trailing_metadata()))
    assert error.code().name == expected, error
    assert said["x-crosstown-code"] == code, said
    print(error.details(), said)


def limited():
    unary("Unary", b"x")
    error = code_of("Unary", b"x")
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, error
    said = dict((*error.initial_metadata(), *error.trailing_metadata()))
    assert said["x-crosstown-code"] == "rate_limited" and said["retry-after"], said
    assert said["ratelimit"] and said["ratelimit-policy"], said
    print("limited")


def peers():
    """Who answers, call by call, until somebody has for long enough."""
    until = time.monotonic() + float(arguments[0])
    counts = {}

    def ask(_):
        while time.monotonic() < until:
            try:
                line = unary("Told")[0].decode().splitlines()[-1]
            except grpc.RpcError as error:
                # A server of gRPC's own library cancels what it has read and not yet given to
                # a handler when it is stopped.
                if error.code() is not grpc.StatusCode.CANCELLED:
                    raise
                line = "cancelled"
            counts.setdefault(line, itertools.count()).__next__()

    with futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))
    for line, count in sorted(counts.items()):
        print(line, next(count))


def serving():
    unary("Serving", arguments[0].encode())


globals()[story]()
