"""One publish under a retry policy of gRPC's own, with a session or without.

    policy.py TOPIC session|plain

The library repeats what ends with UNAVAILABLE, and so says of a connection that broke, whatever had become of the call.
"""

import json
import os
import sys

import grpc
from raftqueue.v1 import queue_pb2 as rq, queue_pb2_grpc

POLICY = {
    "maxAttempts": 5,
    "initialBackoff": "0.2s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
OPTIONS = [
    ("grpc.default_authority", "raftqueue"),
    ("grpc.service_config", json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": POLICY}]})),
]

_, topic, how = sys.argv
queue = queue_pb2_grpc.QueueStub(grpc.insecure_channel("ipv4:" + os.environ["RAFTQ_ENDPOINTS"], options=OPTIONS))
request = rq.PublishRequest(topic=topic, messages=[rq.NewMessage(body=how.encode())])
if how == "session":
    request.session.session = queue.OpenSession(rq.OpenSessionRequest(), timeout=20).session
    request.session.sequence = 1
print("published", queue.Publish(request, timeout=20).first_offset)
