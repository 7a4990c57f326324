"""A producer and a consumer to start from, with nothing but grpcio.

    worker.py publish TOPIC          each line of the standard input is a message, stored once, whoever leads
    worker.py consume TOPIC COUNT    until so many messages are acknowledged

The nodes are those of RAFTQ_ENDPOINTS. Each line that is printed is something that the queue has confirmed, or delivered.
"""

import os
import queue as queues
import sys
import time
from collections import deque

import grpc
from grpc_status import rpc_status
from raftqueue.v1 import queue_pb2 as rq, queue_pb2_grpc

NODES = os.environ.get("RAFTQ_ENDPOINTS", "127.0.0.1:7420,127.0.0.1:7430,127.0.0.1:7440")
OPTIONS = [
    # Without it the list of nodes stands where HTTP/2 wants the name of a host, and each call is reset (PROTOCOL_ERROR).
    ("grpc.default_authority", "raftqueue"),
    # A machine that is gone says nothing: without pings that is noticed by deadlines alone, and a stream has none. With the first
    # two options alone it takes more than a minute: few pings are sent on a stream that rests, and each may take 60 s.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.ping_timeout_ms", 5_000),
    # While no node can be reached the library comes again after 1 s, then 1.6 s, up to 2 minutes. Not here.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]
LEASE_MS = 5_000
CREDIT = 16
PATIENCE_S = 60
# Of these a repeat may help. Whether the call was done may be unknown, so what is repeated must bear it.
REPEATED = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}


def detail_of(error):
    """What the node says of a failure. Without that it was made on the way, and the outcome is unknown."""
    detail = rq.ErrorDetail(outcome=rq.OUTCOME_UNKNOWN)
    status = rpc_status.from_call(error)
    for any_detail in status.details if status else []:
        any_detail.Unpack(detail)
    return detail


def say(*words):
    print(*words, flush=True)


def note(error, what):
    """Says why something is tried again, and waits. A failure that no repeat mends is raised."""
    detail = detail_of(error)
    if error.code() not in REPEATED:
        raise error
    print("again:", what, error.code().name, rq.Outcome.Name(detail.outcome), file=sys.stderr, flush=True)
    time.sleep(max(detail.retry_after_ms, 100) / 1000)


def insist(what, call):
    """Repeats a call until it is done."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return call()
        except grpc.RpcError as error:
            if time.monotonic() > end:
                raise
            note(error, what)


def publish(stub, topic):
    session = insist("session", lambda: stub.OpenSession(rq.OpenSessionRequest(), timeout=2)).session
    for sequence, line in enumerate(sys.stdin, start=1):
        body = line.rstrip("\n")
        step = rq.SessionStep(session=session, sequence=sequence)
        request = rq.PublishRequest(topic=topic, session=step, messages=[rq.NewMessage(body=body.encode())])
        # The same number and the same message: if the first one was stored, its offset is the answer.
        answer = insist(f"publish {sequence}", lambda: stub.Publish(request, timeout=2))
        say("published", answer.first_offset, body)
    insist("close", lambda: stub.CloseSession(rq.CloseSessionRequest(session=session), timeout=2))


class Consumer:
    """Settles what it gets. Leases outlive a stream: what was not answered is said again on the next one."""

    def __init__(self, stub, topic, count):
        self.stub, self.topic, self.count = stub, topic, count
        self.acknowledged = set()
        # Settlements without an answer, with what they are about. Answers come in their order.
        self.unanswered = deque()

    def run(self):
        while len(self.acknowledged) < self.count:
            try:
                self.stream()
            except grpc.RpcError as error:
                note(error, "consume")

    def stream(self):
        self.requests = queues.SimpleQueue()
        start = rq.ConsumeStart(topic=self.topic, lease_ms=LEASE_MS)
        self.requests.put(rq.ConsumeRequest(start=start))
        for settlement, _ in self.unanswered:
            self.requests.put(rq.ConsumeRequest(settlement=settlement))
        self.requests.put(rq.ConsumeRequest(credit=rq.Credit(messages=CREDIT)))
        call = self.stub.Consume(iter(self.requests.get, None))
        for event in call:
            if len(self.acknowledged) >= self.count:
                continue
            for delivery in event.received.deliveries:
                self.handle(delivery)
            if event.HasField("settled"):
                self.settled(event.settled.results[0])
            if len(self.acknowledged) >= self.count:
                # Closing this side gives back what is leased and was not begun; the other side then ends, too.
                self.requests.put(None)

    def handle(self, delivery):
        body = delivery.body.decode()
        say("received", delivery.offset, delivery.attempts, body)
        if body.startswith("fail") and delivery.attempts == 0:
            self.settle(delivery, rq.Settlement.KIND_NACK, delay_ms=100, reason="not today")
        else:
            if body.startswith("slow"):
                self.settle(delivery, rq.Settlement.KIND_EXTEND, lease_ms=2 * LEASE_MS)
            self.settle(delivery, rq.Settlement.KIND_ACK)
        self.requests.put(rq.ConsumeRequest(credit=rq.Credit(messages=1)))

    def settle(self, delivery, kind, **how):
        settlement = rq.Settlement(kind=kind, leases=[delivery.lease], **how)
        self.unanswered.append((settlement, delivery))
        self.requests.put(rq.ConsumeRequest(settlement=settlement))

    def settled(self, result):
        settlement, delivery = self.unanswered.popleft()
        kind = rq.Settlement.Kind.Name(settlement.kind).removeprefix("KIND_").lower()
        say(kind, delivery.offset, rq.LeaseResult.Name(result).removeprefix("LEASE_RESULT_"))
        # GONE: an earlier acknowledgement had arrived. STALE: the lease had ended, and the message comes again.
        if kind == "ack" and result in (rq.LEASE_RESULT_DONE, rq.LEASE_RESULT_GONE):
            self.acknowledged.add(delivery.offset)


def main(command, topic, count=0):
    with grpc.insecure_channel("ipv4:" + NODES, options=OPTIONS) as channel:
        stub = queue_pb2_grpc.QueueStub(channel)
        try:
            if command == "publish":
                publish(stub, topic)
            else:
                Consumer(stub, topic, int(count)).run()
        except grpc.RpcError as error:
            detail = detail_of(error)
            sys.exit(f"error: {rq.Reason.Name(detail.reason)} {rq.Outcome.Name(detail.outcome)}: {error.details()}")


main(*sys.argv[1:])
