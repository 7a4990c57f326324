#!/usr/bin/env bash
# tonic 0.14.9: a call's deadline ends with the answer's headers, so that a stream outlives it; and a call that it does end
# has the code CANCELLED.
#
# One would guess: `Request::set_timeout` sets the deadline that gRPC knows: whatever the call does, it ends by then with
# DEADLINE_EXCEEDED, as a client made with grpc-go does.
# What happens: client and server of tonic watch the time until the answer's headers are there. A stream whose first message
# came in time goes on for good if the server is tonic too; a server of grpc-go ends it. A call that got no answer in time
# ends with CANCELLED "Timeout expired", so that code which asks for DEADLINE_EXCEEDED (to try again, or to count it) never
# sees one.
# Who meets it: consumers of a queue, and watchers, that bound a stream by a deadline ("receive for at most 30 s"): with tonic
# at both ends it never ends. And services in several languages that share rules on when to try again.
#
# Seen (Watch of the health service with a deadline of 0.5 s; Check of a server that never answers):
#   watch, tonic client, tonic server: open after 5 s
#   watch, tonic client, Go server:    Cancelled: Stream has ended. (or: error reading a body from connection)
#   watch, Go client, tonic server:    DeadlineExceeded: context deadline exceeded
#   check, tonic client:               Cancelled: Timeout expired
#   check, Go client:                  DeadlineExceeded: ...
#
# Needs: Rust 1.88 or newer, Go 1.26 or newer.
set -euo pipefail
folder=$(mktemp -d)
servers=()
trap 'kill "${servers[@]}" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
mkdir go rust rust/src
cat >rust/Cargo.toml <<'END'
[package]
name = "deadlines"
version = "0.0.0"
edition = "2024"

[dependencies]
tokio = { version = "=1.47.1", features = ["macros", "net", "rt", "time"] }
tokio-stream = { version = "=0.1.17", features = ["net"] }
tonic = { version = "=0.14.9", default-features = false, features = ["channel", "router", "server"] }
tonic-health = "=0.14.9"
END
cat >rust/src/main.rs <<'END'
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Status};
use tonic_health::ServingStatus::Serving;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

fn client(address: &str) -> HealthClient<Channel> {
    HealthClient::new(Endpoint::new(format!("http://{address}")).expect("an address").connect_lazy())
}

fn request() -> Request<HealthCheckRequest> {
    let mut request = Request::new(HealthCheckRequest { service: "queue".to_owned() });
    request.set_timeout(Duration::from_millis(500));
    request
}

async fn watch(address: &str) -> Result<(), Status> {
    let mut stream = client(address).watch(request()).await?.into_inner();
    while stream.message().await?.is_some() {}
    Ok(())
}

fn words(ended: Result<(), Status>) -> String {
    ended.map_or_else(|status| format!("{:?}: {}", status.code(), status.message()), |()| "end".to_owned())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve"] => {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            println!("{}", listener.local_addr().expect("an address"));
            let (reporter, service) = tonic_health::server::health_reporter();
            reporter.set_service_status("queue", Serving).await;
            Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)).await.expect("serves");
        }
        ["watch", address] => match tokio::time::timeout(Duration::from_secs(5), watch(address)).await {
            Ok(ended) => println!("{}", words(ended)),
            Err(_) => println!("open after 5 s"),
        },
        ["check", address] => println!("{}", words(client(address).check(request()).await.map(|_| ()))),
        _ => panic!("serve | watch ADDRESS | check ADDRESS"),
    }
}
END
cat >go/go.mod <<'END'
module example.org/deadlines

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
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	pb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

func main() {
	if os.Args[1] != "watch" && os.Args[1] != "check" {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			panic(err)
		}
		fmt.Println(listener.Addr())
		if os.Args[1] == "silence" {
			for {
				_, _ = listener.Accept()
			}
		}
		server, service := grpc.NewServer(), health.NewServer()
		service.SetServingStatus("queue", pb.HealthCheckResponse_SERVING)
		pb.RegisterHealthServer(server, service)
		panic(server.Serve(listener))
	}
	conn, err := grpc.NewClient(os.Args[2], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	request := &pb.HealthCheckRequest{Service: "queue"}
	if os.Args[1] == "check" {
		_, err = pb.NewHealthClient(conn).Check(ctx, request)
	} else {
		stream, failed := pb.NewHealthClient(conn).Watch(ctx, request)
		for err = failed; err == nil; {
			_, err = stream.Recv()
		}
	}
	fmt.Printf("%v: %s\n", status.Code(err), status.Convert(err).Message())
}
END
(cd rust && cargo build -q && cp target/debug/deadlines ../by-tonic)
(cd go && go mod tidy 2>/dev/null && go build -o ../by-go .)

# serve COMMAND...: starts a server; its address is in the variable `address`.
serve() {
    : >address
    "$@" >address &
    servers+=($!)
    until [ -s address ]; do sleep 0.1; done
    address=$(cat address)
}
serve ./by-tonic serve && tonic=$address
serve ./by-go serve && go=$address
serve ./by-go silence && silence=$address
failed=0
# expect NAME PATTERN COMMAND...
expect() {
    local name=$1 pattern=$2 seen
    shift 2
    seen=$("$@")
    echo "$name: $seen"
    [[ $seen == $pattern ]] || { echo "changed: $name: expected $pattern"; failed=1; }
}
expect "watch, tonic client, tonic server" "open after 5 s" ./by-tonic watch "$tonic"
expect "watch, tonic client, Go server" "Cancelled: *" ./by-tonic watch "$go"
expect "watch, Go client, tonic server" "DeadlineExceeded: *" ./by-go watch "$tonic"
expect "check, tonic client" "Cancelled: Timeout expired" ./by-tonic check "$silence"
expect "check, Go client" "DeadlineExceeded: *" ./by-go check "$silence"
exit $failed
