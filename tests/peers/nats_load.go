package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
)

const (
	// What may be delivered and not acknowledged, of all consumers: the default of 1,000 would hold them up.
	natsPending = 10_000
	// What one fetch asks for.
	natsFetch = 256
)

// A natsPublisher is a caller; connections are shared.
type natsPublisher struct {
	js      jetstream.JetStream
	subject string
}

func (p *natsPublisher) publish(ctx context.Context, body []byte) error {
	_, err := p.js.Publish(ctx, p.subject, body)
	return err
}

func (p *natsPublisher) send(body []byte) (func() error, error) {
	answer, err := p.js.PublishAsync(p.subject, body)
	if err != nil {
		return nil, err
	}
	return func() error {
		select {
		case <-answer.Ok():
			return nil
		case err := <-answer.Err():
			return err
		}
	}, nil
}

func (p *natsPublisher) batch(ctx context.Context, body []byte, count int) error {
	messages := make([]*nats.Msg, count)
	for i := range messages {
		messages[i] = &nats.Msg{Subject: p.subject, Data: body, Header: nats.Header{}}
	}
	_, err := jetstreamext.PublishMsgBatch(ctx, p.js, messages)
	return err
}

func (n *natsCluster) run(ctx context.Context, l load, length time.Duration, backlog int) (measure, error) {
	n.queues++
	queue := fmt.Sprintf("load-%d", n.queues)
	if err := n.stream(ctx, queue); err != nil {
		return measure{}, err
	}
	leader := 0
	err := until(ctx, "electing the stream's leader", func() (err error) {
		leader, err = n.leaderOf(ctx, queue)
		return err
	})
	if err != nil {
		return measure{}, err
	}
	if l.Kind == batches {
		l.Callers, l.Connections, l.Batch = 4, 4, 500
	}
	var conns []*nats.Conn
	defer func() {
		for _, conn := range conns {
			conn.Close()
		}
		_ = n.control.DeleteStream(context.WithoutCancel(ctx), queue)
	}()
	connect := func(int) (func() (publisher, error), error) {
		conn, err := nats.Connect(n.urls[leader])
		if err != nil {
			return nil, err
		}
		conns = append(conns, conn)
		// Room beyond the window of the caller: the library would refuse what stalls there.
		js, err := jetstream.New(conn, jetstream.WithPublishAsyncMaxPending(2*max(l.Window, natsFetch)))
		return func() (publisher, error) { return &natsPublisher{js, queue}, nil }, err
	}
	publishers, err := openAll(l, connect)
	if err != nil {
		return measure{}, err
	}
	if l.Kind == receive {
		if err := fill(publishers, backlog); err != nil {
			return measure{}, err
		}
		return measured(n.pids(), func() (measure, error) { return n.receive(ctx, queue, conns, backlog) })
	}
	return measured(n.pids(), func() (measure, error) { return drive(ctx, l, publishers, length), nil })
}

// receive takes and acknowledges so many messages, until the server has seen every acknowledgement.
func (n *natsCluster) receive(ctx context.Context, queue string, conns []*nats.Conn, count int) (measure, error) {
	durable, err := n.control.CreateConsumer(ctx, queue, jetstream.ConsumerConfig{
		Durable: "c", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: natsPending,
	})
	if err != nil {
		return measure{}, err
	}
	begun := time.Now()
	var left atomic.Int64
	left.Store(int64(count))
	failures := make([]error, len(conns))
	var callers sync.WaitGroup
	for i, conn := range conns {
		callers.Go(func() { failures[i] = fetchAndAck(ctx, conn, queue, &left) })
	}
	callers.Wait()
	if err := errors.Join(failures...); err != nil {
		return measure{}, err
	}
	for {
		info, err := durable.Info(ctx)
		if err != nil {
			return measure{}, err
		}
		if info.NumAckPending == 0 && info.NumPending == 0 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	return measure{Messages: int64(count), PerSecond: float64(count) / time.Since(begun).Seconds()}, nil
}

func fetchAndAck(ctx context.Context, conn *nats.Conn, queue string, left *atomic.Int64) error {
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	consumer, err := js.Consumer(ctx, queue, "c")
	if err != nil {
		return err
	}
	for left.Load() > 0 && ctx.Err() == nil {
		fetched, err := consumer.Fetch(natsFetch, jetstream.FetchMaxWait(time.Second))
		if err != nil {
			return err
		}
		for message := range fetched.Messages() {
			if err := message.Ack(); err != nil {
				return err
			}
			left.Add(-1)
		}
		if err := fetched.Error(); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// fill publishes a backlog, by all callers at once. It is not measured.
func fill(publishers []publisher, count int) error {
	failures := make([]error, len(publishers))
	var callers sync.WaitGroup
	for i, p := range publishers {
		own := count / len(publishers)
		if i < count%len(publishers) {
			own++
		}
		callers.Go(func() {
			c := &counter{end: time.Now().Add(time.Hour)}
			stream(p, c, natsFetch, func() (time.Time, bool) {
				own--
				return time.Now(), own >= 0
			})
			if c.errors > 0 {
				failures[i] = fmt.Errorf("filling the queue: %d failed: %s", c.errors, c.last)
			}
		})
	}
	callers.Wait()
	return errors.Join(failures...)
}
