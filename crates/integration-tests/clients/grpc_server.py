"""A server of grpcio: bytes in, bytes out, and the standard health service.

Usage: grpc_server.py PORT NAME
"""

import signal
import sys
import threading
import time
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

port, name = sys.argv[1:]
cancelled = threading.Semaphore(0)
checks = health.HealthServicer()
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def unary(request, context):
    held = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-initial", held.get("x-mine", "-")),))
    context.set_trailing_metadata((("x-trailing-bin", bytes(range(256))),))
    return request


def told(_, context):
    lines = [f"{key}: {value}" for key, value in context.invocation_metadata()]
    left = context.time_remaining()
    return "\n".join([*lines, f"left: {left}", f"peer: {name}"]).encode()


def stream(request, _):
    for n in range(int(request)):
        yield str(n).encode()


def collect(requests, _):
    sizes = [len(request) for request in requests]
    return f"{len(sizes)} {sum(sizes)}".encode()


def chat(requests, _):
    for request in requests:
        yield request.upper()


def fail(_, context):
    context.set_trailing_metadata((("x-why", "asked"),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "nein – 100 %")


def sleep(request, context):
    ended = threading.Event()
    context.add_callback(ended.set)
    if ended.wait(float(request)):
        cancelled.release()
    return b"awake"


def was_cancelled(_, context):
    if not cancelled.acquire(timeout=10):
        context.abort(grpc.StatusCode.NOT_FOUND, "nobody cancelled")
    return b"yes"


def break_off(_, context):
    yield b"first"
    context.abort(grpc.StatusCode.DATA_LOSS, "the rest is lost")


def serving(request, _):
    checks.set("echo.Echo", SERVING if request == b"yes" else NOT_SERVING)
    return b""


KINDS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Told": grpc.unary_unary_rpc_method_handler(told),
    "Stream": grpc.unary_stream_rpc_method_handler(stream),
    "Collect": grpc.stream_unary_rpc_method_handler(collect),
    "Chat": grpc.stream_stream_rpc_method_handler(chat),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Sleep": grpc.unary_unary_rpc_method_handler(sleep),
    "WasCancelled": grpc.unary_unary_rpc_method_handler(was_cancelled),
    "BreakOff": grpc.unary_stream_rpc_method_handler(break_off),
    "Serving": grpc.unary_unary_rpc_method_handler(serving),
}

server = grpc.server(
    futures.ThreadPoolExecutor(max_workers=256),
    options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 64 << 20)],
)
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("echo.Echo", KINDS)])
health_pb2_grpc.add_HealthServicer_to_server(checks, server)
checks.set("echo.Echo", SERVING)
server.add_insecure_port(f"127.0.0.1:{port}")
server.start()
signal.signal(signal.SIGTERM, lambda *_: server.stop(5))
server.wait_for_termination()
