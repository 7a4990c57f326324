#!/usr/bin/env bash
# tonic 0.14.9 refuses a message over its size limit with OUT_OF_RANGE; grpc-go and gRPC's own list of codes say
# RESOURCE_EXHAUSTED.
#
# One would guess: the same refusal has the same code whatever library the server is made with.
# What happens: a server made with tonic answers OUT_OF_RANGE, which gRPC keeps for reads past an end ("read until it says
# OUT_OF_RANGE"); a server made with grpc-go answers RESOURCE_EXHAUSTED to the same client and the same message. Both have the
# same limit, 4 MiB, when none is set.
# Who meets it: producers that split a batch, or drop a message, when they see RESOURCE_EXHAUSTED: against a server in Rust they
# never see it. And readers that take OUT_OF_RANGE for the end of the data.
#
# Seen (a client made with grpc-go, a request of 5 MiB):
#   tonic:   OutOfRange: Error, decoded message length too large: found 5242885 bytes, the limit is: 4194304 bytes
#   grpc-go: ResourceExhausted: grpc: received message larger than max (5242885 vs. 4194304)
#
# Needs: Rust 1.88 or newer, Go 1.26 or newer.
set -euo pipefail
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
mkdir go rust rust/src
cat >rust/Cargo.toml <<'END'
[package]
name = "sizes"
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
    let (_, service) = tonic_health::server::health_reporter();
    tonic::transport::Server::builder()
        .add_service(service)
        .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener))
        .await
        .expect("serves");
}
END
cat >go/go.mod <<'END'
module example.org/sizes

go 1.26.0

require google.golang.org/grpc v1.84.0
END
cat >go/main.go <<'END'
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	pb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	server := grpc.NewServer()
	pb.RegisterHealthServer(server, health.NewServer())
	go func() { panic(server.Serve(listener)) }()
	// The health service stands for any service: the limit is below it.
	for _, target := range [][2]string{{"tonic", os.Args[1]}, {"grpc-go", listener.Addr().String()}} {
		conn, err := grpc.NewClient(target[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			panic(err)
		}
		request := &pb.HealthCheckRequest{Service: strings.Repeat("x", 5<<20)}
		_, err = pb.NewHealthClient(conn).Check(context.Background(), request)
		fmt.Printf("%s: %v: %s\n", target[0], status.Code(err), status.Convert(err).Message())
	}
}
END
(cd rust && cargo build -q)
(cd go && go mod tidy 2>/dev/null && go build -o ../sizes .)
rust/target/debug/sizes >address &
server=$!
until [ -s address ]; do sleep 0.1; done
./sizes "$(cat address)" | tee seen
grep -q '^tonic: OutOfRange: ' seen && grep -q '^grpc-go: ResourceExhausted: ' seen || { echo "changed: other codes"; exit 1; }
