package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Where the callers of the pause publish.
const natsQueue = "pause"

// A natsCaller publishes with a message id, so that a repeat within two minutes is stored once.
type natsCaller struct {
	conn *nats.Conn
	js   jetstream.JetStream
}

func (n *natsCluster) prepare(ctx context.Context) error { return n.stream(ctx, natsQueue) }

func (n *natsCluster) caller(_ context.Context, number int) (caller, error) {
	first := number % 3
	urls := append(append([]string{}, n.urls[first:]...), n.urls[:first]...)
	conn, err := nats.Connect(strings.Join(urls, ","), nats.DontRandomize(), nats.MaxReconnects(-1))
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(conn)
	return &natsCaller{conn, js}, err
}

func (c *natsCaller) try(ctx context.Context, _ int, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	_, err := c.js.Publish(ctx, natsQueue, body, jetstream.WithMsgID(contentOf(body)))
	return err
}

func (c *natsCaller) failed(error) {}

func (c *natsCaller) close() { c.conn.Close() }

func (n *natsCluster) leader(ctx context.Context) (int, error) { return n.leaderOf(ctx, natsQueue) }

func (n *natsCluster) kill(node int) error {
	n.servers[node].kill()
	return nil
}

func (n *natsCluster) healthy(ctx context.Context) error {
	return until(ctx, "all replicas being current", func() error {
		stream, err := n.control.Stream(ctx, natsQueue)
		if err != nil {
			return err
		}
		cluster := stream.CachedInfo().Cluster
		if cluster == nil || cluster.Leader == "" || len(cluster.Replicas) != 2 {
			return errors.New("the stream has no leader, or not two replicas")
		}
		for _, replica := range cluster.Replicas {
			if !replica.Current || replica.Offline {
				return fmt.Errorf("%s: current %v, offline %v", replica.Name, replica.Current, replica.Offline)
			}
		}
		return nil
	})
}

func (n *natsCluster) readAll(ctx context.Context) (map[string]int, error) {
	consumer, err := n.control.CreateConsumer(ctx, natsQueue, jetstream.ConsumerConfig{
		Durable: "c", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: natsPending,
	})
	if err != nil {
		return nil, err
	}
	found := map[string]int{}
	for {
		fetched, err := consumer.Fetch(natsFetch, jetstream.FetchMaxWait(2*time.Second))
		if err != nil {
			return nil, err
		}
		count := 0
		for message := range fetched.Messages() {
			found[contentOf(message.Data())]++
			count++
			if err := message.Ack(); err != nil {
				return nil, err
			}
		}
		if err := fetched.Error(); err != nil {
			return nil, err
		}
		if count == 0 {
			return found, nil
		}
	}
}
