package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	rq "example.org/worker/raftqueue/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
)

func main() {
	nodes, state := manual.NewBuilderWithScheme("nodes"), resolver.State{}
	for _, node := range strings.Split(os.Getenv("RAFTQ_ENDPOINTS"), ",") {
		state.Addresses = append(state.Addresses, resolver.Address{Addr: node}) // when one goes, the next one
	}
	nodes.InitialState(state)
	plain := grpc.WithTransportCredentials(insecure.NewCredentials())
	conn := must(grpc.NewClient("nodes:///raftqueue", grpc.WithResolvers(nodes), plain))
	queue := rq.NewQueueClient(conn)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	session := must(queue.OpenSession(ctx, &rq.OpenSessionRequest{})).Session
	step := &rq.SessionStep{Session: session, Sequence: 1} // makes a repeat of this publish harmless
	hello := []*rq.NewMessage{{Body: []byte("hello")}}
	must(queue.Publish(ctx, &rq.PublishRequest{Topic: "greetings", Session: step, Messages: hello}))
	received := must(queue.Receive(ctx, &rq.ReceiveRequest{Topic: "greetings", MessagesMax: 10, WaitMs: 4000}))
	for _, delivery := range received.Deliveries {
		fmt.Println(delivery.Offset, string(delivery.Body))
		must(queue.Ack(ctx, &rq.AckRequest{Topic: "greetings", Leases: [][]byte{delivery.Lease}}))
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
