# A program of a cluster that has locks: the authorities of its nodes encrypt the connection, and a token says who calls.
import os, sys, grpc
from raftqueue.v1 import queue_pb2 as rq, queue_pb2_grpc

endpoint, topic = sys.argv[1:]
read = lambda file: open(file, "rb").read()
ca, token = os.environ.get("RAFTQ_CA_FILE"), os.environ.get("RAFTQ_TOKEN_FILE")
if ca is None:
    channel = grpc.insecure_channel(endpoint)
else:
    shown = grpc.ssl_channel_credentials(read(ca))
    if token is not None:
        bearer = grpc.access_token_call_credentials(read(token).decode().strip())
        shown = grpc.composite_channel_credentials(shown, bearer)
    channel = grpc.secure_channel(endpoint, shown)
queue = queue_pb2_grpc.QueueStub(channel)
try:
    queue.Publish(rq.PublishRequest(topic=topic, messages=[rq.NewMessage(body=b"hello")]), timeout=5)
    print("OK")
except grpc.RpcError as error:
    print(error.code().name, error.details())
