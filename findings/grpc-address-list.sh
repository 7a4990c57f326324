#!/usr/bin/env bash
# gRPC's C core (here Python's grpcio 1.85.3) and grpc-go 1.85.0, told of several addresses, cannot call a server written in Rust
# (tonic 0.14.9, h2): each call ends with INTERNAL, "RST_STREAM with error code 1" (PROTOCOL_ERROR).
#
# One would guess: `ipv4:10.0.0.1:7420,10.0.0.2:7420` is a target like any other. It is in gRPC's own list of names, is there for
# several servers, and works with servers in Go.
# What happens: what stands in the target becomes `:authority` of each call. So that is a list, with its commas escaped, and with a
# resolver of one's own in Go (`nodes:///`, as the examples of the package `manual` have it) it is empty. Servers of the gRPC
# project do not look at it. h2 resets a stream of which it is not the name of a host, before any code of the server sees the call, and says
# so at no level that is on by default.
# Who meets it: clients that fail over between several nodes by address, as those of databases and queues do, once the server is
# in Rust. That clients of Unix sockets meet it is known (hyperium/h2 #487); that lists of addresses do is not.
# What helps is at the client: the option `grpc.default_authority`, in Go a name behind the slashes (`nodes:///any-name`).
#
# Seen (the code of a health check):
#   tonic:   python, one address        OK
#   tonic:   python, two addresses      INTERNAL
#   tonic:   python, two and authority  OK
#   tonic:   go, nodes:///              Internal
#   tonic:   go, nodes:///any-name      OK
#   grpc-go: python, one address        OK
#   grpc-go: python, two addresses      OK
#   grpc-go: python, two and authority  OK
#   grpc-go: go, nodes:///              OK
#   grpc-go: go, nodes:///any-name      OK
#
# Needs: Rust 1.88 or newer, Go 1.26 or newer, Python 3.9 or newer with venv.
set -euo pipefail
folder=$(mktemp -d)
servers=()
trap 'for one in "${servers[@]}"; do kill "$one" 2>/dev/null || true; done; rm -rf "$folder"' EXIT
cd "$folder"
mkdir go rust rust/src
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check grpcio==1.85.3 grpcio-health-checking==1.85.1
cat >check.py <<'END'
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

name, address = sys.argv[1:]
named = [("grpc.default_authority", "any-name")]
ways = [
    ("one address       ", f"ipv4:{address}", []),
    ("two addresses     ", f"ipv4:{address},{address}", []),
    ("two and authority ", f"ipv4:{address},{address}", named),
]
for way, target, options in ways:
    with grpc.insecure_channel(target, options=options) as channel:
        try:
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
            code = "OK"
        except grpc.RpcError as error:
            code = error.code().name
    print(f"{name} python, {way} {code}")
END
cat >rust/Cargo.toml <<'END'
[package]
name = "serve"
version = "0.0.0"
edition = "2024"

[dependencies]
tokio = { version = "=1.47.1", features = ["macros", "net", "rt"] }
tokio-stream = { version = "=0.1.17", features = ["net"] }
tonic = { version = "=0.14.9", default-features = false, features = ["router", "server"] }
tonic-health = "=0.14.9"
END
cat >rust/src/main.rs <<'END'
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("{}", listener.local_addr().expect("an address"));
    let (_reporter, service) = tonic_health::server::health_reporter();
    let server = tonic::transport::Server::builder().add_service(service);
    server.serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener)).await.expect("serves");
}
END
cat >go/go.mod <<'END'
module example.org/check

go 1.26.0

require google.golang.org/grpc v1.85.0
END
cat >go/main.go <<'END'
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	pb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"
)

func main() {
	if len(os.Args) == 1 {
		serve()
	}
	for _, target := range []string{"nodes:///", "nodes:///any-name"} {
		nodes := manual.NewBuilderWithScheme("nodes")
		nodes.InitialState(resolver.State{Addresses: []resolver.Address{{Addr: os.Args[2]}}})
		conn, err := grpc.NewClient(target, grpc.WithResolvers(nodes), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			panic(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		_, err = pb.NewHealthClient(conn).Check(ctx, &pb.HealthCheckRequest{})
		cancel()
		fmt.Printf("%s go, %-22s %v\n", os.Args[1], target, status.Code(err))
	}
}

func serve() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr())
	server := grpc.NewServer()
	pb.RegisterHealthServer(server, health.NewServer())
	panic(server.Serve(listener))
}
END
(cd rust && cargo build -q)
(cd go && go mod tidy 2>/dev/null && go build -o ../check .)
start() {
    "$2" >"$1" &
    servers+=($!)
    until [ -s "$1" ]; do sleep 0.1; done
}
start tonic rust/target/debug/serve
start grpc-go ./check
for server in tonic grpc-go; do
    address=$(head -n 1 "$server")
    venv/bin/python check.py "$(printf '%-8s' "$server:")" "$address"
    ./check "$(printf '%-8s' "$server:")" "$address"
done | tee seen
cat >expected <<'END'
tonic:   python, one address        OK
tonic:   python, two addresses      INTERNAL
tonic:   python, two and authority  OK
tonic:   go, nodes:///              Internal
tonic:   go, nodes:///any-name      OK
grpc-go: python, one address        OK
grpc-go: python, two addresses      OK
grpc-go: python, two and authority  OK
grpc-go: go, nodes:///              OK
grpc-go: go, nodes:///any-name      OK
END
diff expected seen || { echo "changed: other calls end well"; exit 1; }
