#!/usr/bin/env bash
# tonic 0.14.9: an error that is a stream's first item is never tried again by a client's retry policy; the same error as the
# call's result is, and with grpc-go there is no such difference.
#
# One would guess: a client whose policy says "try UNAVAILABLE again" does so whenever a stream ends with it before the first
# message.
# What happens: tonic sends the answer's headers as soon as the handler has returned a stream, before it asks that for an item.
# A retry policy (gRPC's A6) counts a call as begun once headers came, and hands the error on. A server of grpc-go sends headers
# with the first message only, so that the same handler ("look, then refuse") is tried again there.
# Who meets it: servers in Rust that hand out a stream at once and learn within it that they cannot serve ("not the leader"),
# with clients that have a retry policy: these see errors that they thought were taken care of. The handler must find out
# before it returns the stream.
#
# Seen (a client made with grpc-go, at most 4 attempts, UNAVAILABLE; the number of calls that reached the server):
#   tonic, error as the result:     4
#   tonic, error as the first item: 1
#   grpc-go:                        4
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
name = "refuse"
version = "0.0.0"
edition = "2024"

[dependencies]
tokio = { version = "=1.47.1", features = ["macros", "net", "rt"] }
tokio-stream = { version = "=0.1.17", features = ["net"] }
tonic = { version = "=0.14.9", default-features = false, features = ["router", "server"] }
tonic-health = "=0.14.9"
END
cat >rust/src/main.rs <<'END'
//! A service with a stream (the health service has one, and needs no generated code) that refuses each call.
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

struct Service;

#[tonic::async_trait]
impl Health for Service {
    type WatchStream = tokio_stream::Once<Result<HealthCheckResponse, Status>>;

    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        Err(Status::unimplemented("nobody calls this"))
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let how = &request.get_ref().service;
        println!("{how}");
        match how.as_str() {
            "result" => Err(Status::unavailable("not the leader")),
            _ => Ok(Response::new(tokio_stream::once(Err(Status::unavailable("not the leader"))))),
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("{}", listener.local_addr().expect("an address"));
    let service = Server::builder().add_service(HealthServer::new(Service));
    service.serve_with_incoming(TcpListenerStream::new(listener)).await.expect("serves");
}
END
cat >go/go.mod <<'END'
module example.org/again

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
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

const policy = `{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.01s",
	"maxBackoff": "0.02s", "backoffMultiplier": 1, "retryableStatusCodes": ["UNAVAILABLE"]}}]}`

type service struct {
	pb.UnimplementedHealthServer
	calls atomic.Int64
}

func (s *service) Watch(*pb.HealthCheckRequest, grpc.ServerStreamingServer[pb.HealthCheckResponse]) error {
	s.calls.Add(1)
	return status.Error(codes.Unavailable, "not the leader")
}

// One call that is refused, by the server at the address.
func call(address, how string) {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(policy))
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	stream, err := pb.NewHealthClient(conn).Watch(context.Background(), &pb.HealthCheckRequest{Service: how})
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.Unavailable {
		panic(err)
	}
}

func main() {
	call(os.Args[1], "result")
	call(os.Args[1], "item")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	server, own := grpc.NewServer(), &service{}
	pb.RegisterHealthServer(server, own)
	go func() { panic(server.Serve(listener)) }()
	call(listener.Addr().String(), "")
	fmt.Println("grpc-go:", own.calls.Load())
}
END
(cd rust && cargo build -q)
(cd go && go mod tidy 2>/dev/null && go build -o ../again .)
rust/target/debug/refuse >calls &
server=$!
until [ -s calls ]; do sleep 0.1; done
./again "$(head -n 1 calls)" | tee seen
{
    echo "tonic, result: $(grep -cx result calls)"
    echo "tonic, item: $(grep -cx item calls)"
} | tee -a seen
cat >expected <<'END'
grpc-go: 4
tonic, result: 4
tonic, item: 1
END
diff expected seen || { echo "changed: other numbers of attempts"; exit 1; }
