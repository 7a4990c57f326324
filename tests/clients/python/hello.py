import os, grpc
from raftqueue.v1 import queue_pb2 as rq, queue_pb2_grpc

nodes = os.environ.get("RAFTQ_ENDPOINTS", "127.0.0.1:7420,127.0.0.1:7430,127.0.0.1:7440")
# One connection, to the first node that answers; when that goes, to the next one. A list is no name of a host: give one.
channel = grpc.insecure_channel("ipv4:" + nodes, options=[("grpc.default_authority", "raftqueue")])
queue = queue_pb2_grpc.QueueStub(channel)
session = queue.OpenSession(rq.OpenSessionRequest(), timeout=5).session
step = rq.SessionStep(session=session, sequence=1)  # makes a repeat of this publish harmless
hello = rq.NewMessage(body="hello".encode())
queue.Publish(rq.PublishRequest(topic="greetings", session=step, messages=[hello]), timeout=5)
received = queue.Receive(rq.ReceiveRequest(topic="greetings", messages_max=10, wait_ms=4000), timeout=5)
for delivery in received.deliveries:
    print(delivery.offset, delivery.body.decode())
queue.Ack(rq.AckRequest(topic="greetings", leases=[d.lease for d in received.deliveries]), timeout=5)
