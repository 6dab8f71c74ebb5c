"""A receiver of OTLP over HTTP, by the messages that the OpenTelemetry project publishes.

What came last is told as JSON at `GET /`; `GET /count` tells how often something came.
"""

import http.server
import json
import sys

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

came = []


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        assert self.path == "/v1/metrics", self.path
        assert self.headers["content-type"] == "application/x-protobuf"
        body = self.rfile.read(int(self.headers["content-length"]))
        came.append(MessageToDict(ExportMetricsServiceRequest.FromString(body)))
        self.answer(ExportMetricsServiceResponse().SerializeToString(), "application/x-protobuf")

    def do_GET(self):
        told = len(came) if self.path == "/count" else came[-1] if came else {}
        self.answer(json.dumps(told).encode(), "application/json")

    def answer(self, body, kind):
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *said):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
