#!/usr/bin/env bash
# tonic-health 0.14.9: to watch the health of a service that has no status yet is refused with NOT_FOUND, where gRPC's health
# protocol wants SERVICE_UNKNOWN and an open stream: clients that check health learn late that it became ready.
#
# One would guess: `Watch` says SERVICE_UNKNOWN, stays open, and says SERVING once the server reports it, as the protocol's
# comments ask for and as grpc-go's health service does.
# What happens: the stream ends with NOT_FOUND. A client with `healthCheckConfig` takes that for a failure and asks again after
# a pause that grows each time, from a second up to two minutes: the later a server is ready, the later the client sees it.
# Who meets it: servers that report a status only once they are ready (a replica that caught up, a leader that was elected),
# with clients in Go that balance over them by their health. To report NOT_SERVING at the start avoids it. Kubernetes' own
# probe asks with `Check` and does not meet it.
#
# Seen (a client made with grpc-go; the status is reported 12 s after the start):
#   watch, tonic:   NotFound: service not registered
#   watch, grpc-go: SERVICE_UNKNOWN, then SERVING
#   a balancing client's first call, tonic:   16.1 s after the start
#   a balancing client's first call, grpc-go: 12.0 s after the start
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
name = "late"
version = "0.0.0"
edition = "2024"

[dependencies]
tokio = { version = "=1.47.1", features = ["macros", "net", "rt", "time"] }
tokio-stream = { version = "=0.1.17", features = ["net"] }
tonic = { version = "=0.14.9", default-features = false, features = ["router", "server"] }
tonic-health = "=0.14.9"
END
cat >rust/src/main.rs <<'END'
use std::time::Duration;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("{}", listener.local_addr().expect("an address"));
    let (reporter, service) = tonic_health::server::health_reporter();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(12)).await;
        reporter.set_service_status("queue", tonic_health::ServingStatus::Serving).await;
    });
    let server = tonic::transport::Server::builder().add_service(service);
    let connections = tokio_stream::wrappers::TcpListenerStream::new(listener);
    server.serve_with_incoming(connections).await.expect("serves");
}
END
cat >go/go.mod <<'END'
module example.org/late

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

var ctx = context.Background()

func client(address, config string) pb.HealthClient {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(config))
	if err != nil {
		panic(err)
	}
	return pb.NewHealthClient(conn)
}

// What a watcher hears until it hears SERVING or the stream ends.
func watch(address string) (heard string) {
	stream, err := client(address, `{}`).Watch(ctx, &pb.HealthCheckRequest{Service: "queue"})
	for err == nil {
		var answer *pb.HealthCheckResponse
		if answer, err = stream.Recv(); err == nil {
			heard += answer.Status.String()
			if answer.Status == pb.HealthCheckResponse_SERVING {
				return heard
			}
			heard += ", then "
		}
	}
	return heard + fmt.Sprintf("%v: %s", status.Code(err), status.Convert(err).Message())
}

// Waits until a client that checks the health of "queue" makes its first call.
func ready(address string) {
	balanced := client(address, `{"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": "queue"}}`)
	if _, err := balanced.Check(ctx, &pb.HealthCheckRequest{}, grpc.WaitForReady(true)); err != nil {
		panic(err)
	}
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	server, service := grpc.NewServer(), health.NewServer()
	pb.RegisterHealthServer(server, service)
	go func() { panic(server.Serve(listener)) }()
	begin := time.Now()
	time.AfterFunc(12*time.Second, func() { service.SetServingStatus("queue", pb.HealthCheckResponse_SERVING) })
	done := make(chan bool)
	for _, target := range [][2]string{{"tonic", os.Args[1]}, {"grpc-go", listener.Addr().String()}} {
		go func() {
			ready(target[1])
			fmt.Fprintf(os.Stderr, "a balancing client's first call, %s: %.1f s after the start\n", target[0], time.Since(begin).Seconds())
			done <- true
		}()
	}
	fmt.Println("watch, tonic:", watch(os.Args[1]))
	fmt.Println("watch, grpc-go:", watch(listener.Addr().String()))
	<-done
	<-done
}
END
(cd rust && cargo build -q)
(cd go && go mod tidy 2>/dev/null && go build -o ../watch .)
rust/target/debug/late >address &
server=$!
until [ -s address ]; do sleep 0.1; done
./watch "$(cat address)" | tee seen
cat >expected <<'END'
watch, tonic: NotFound: service not registered
watch, grpc-go: SERVICE_UNKNOWN, then SERVING
END
diff expected seen || { echo "changed: an unknown service is watched otherwise"; exit 1; }
