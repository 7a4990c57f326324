#!/usr/bin/env bash
# gRPC's C core (here Python's grpcio 1.85.3): a client with `grpc.keepalive_time_ms` 10 s and `grpc.keepalive_timeout_ms` 1 s notices a
# server that hangs after more than a minute, and not after 11 s.
#
# One would guess: a ping every 10 s, and the end of the connection 1 s after one that is not answered. So says the guide.
# What happens: how long a ping may take is `grpc.http2.ping_timeout_ms`, by default a minute, whatever the other option says. And
# on a stream that rests, no more than a few pings are sent before `grpc.http2.max_pings_without_data` slows them down to one in a minute or
# so. Only both options together make it what one would guess. grpc-go and grpc-js need neither.
# Who meets it: consumers that wait on a stream for what is rare, as those of queues and watches do, when a server hangs or a machine is gone.
#
# Seen (how long after the server was stopped the stream ended; it had rested for 45 s):
#   keepalive: 95 s
#   keepalive, max_pings_without_data: 65 s
#   keepalive, ping_timeout: 36 s
#   keepalive, max_pings_without_data, ping_timeout: 6 s
#
# Needs: Python 3.9 or newer with venv. Takes three minutes.
set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || { kill -KILL "$server" && wait "$server"; } 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check grpcio==1.85.3 grpcio-health-checking==1.85.1
cat >server.py <<'END'
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2_grpc

# A server that bears pings of any number.
options = [("grpc.http2.max_ping_strikes", 0)]
server = grpc.server(futures.ThreadPoolExecutor(max_workers=10), options=options)
health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
server.wait_for_termination()
END
cat >client.py <<'END'
import os
import signal
import sys
import threading
import time

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

port, server = sys.argv[1], int(sys.argv[2])
keepalive = [("grpc.keepalive_time_ms", 10_000), ("grpc.keepalive_timeout_ms", 1_000)]
more = {"max_pings_without_data": 0, "ping_timeout": 1_000}
names = {"max_pings_without_data": "grpc.http2.max_pings_without_data", "ping_timeout": "grpc.http2.ping_timeout_ms"}
ways = [[], ["max_pings_without_data"], ["ping_timeout"], ["max_pings_without_data", "ping_timeout"]]
ended = {}
# Each way has a connection of its own.
own = [("grpc.use_local_subchannel_pool", 1)]


def watch(number):
    options = own + keepalive + [(names[name], more[name]) for name in ways[number]]
    with grpc.insecure_channel("127.0.0.1:" + port, options=options) as channel:
        try:
            for _ in health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest()):
                pass
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE, error
        ended[number] = time.monotonic()


threads = [threading.Thread(target=watch, args=(number,)) for number in range(len(ways))]
for thread in threads:
    thread.start()
time.sleep(45)
assert not ended, "no stream ends while the server answers"
os.kill(server, signal.SIGSTOP)
stopped = time.monotonic()
for thread in threads:
    thread.join()
for number, way in enumerate(ways):
    took = ended[number] - stopped
    name = ", ".join(["keepalive", *way])
    print(f"{name}: {took:.0f} s", file=sys.stderr)
    print(f"{name}:", "over 60 s" if took > 60 else "over 15 s" if took > 15 else "within 15 s")
END
venv/bin/python server.py >port &
server=$!
until [ -s port ]; do sleep 0.1; done
venv/bin/python client.py "$(cat port)" "$server" | tee seen
cat >expected <<'END'
keepalive: over 60 s
keepalive, max_pings_without_data: over 60 s
keepalive, ping_timeout: over 15 s
keepalive, max_pings_without_data, ping_timeout: within 15 s
END
diff expected seen || { echo "changed: other times"; exit 1; }
