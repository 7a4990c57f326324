package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	rabbitPrefetch = 256
	// Acknowledged at once.
	rabbitAcks = 64
	// Or whatever is held, so often.
	rabbitAckAfter = 5 * time.Millisecond
)

var errNoBatches = errors.New("it has no batches")

// A rabbitPublisher is a channel with publisher confirms.
type rabbitPublisher struct {
	channel *amqp.Channel
	queue   string
}

func newRabbitPublisher(conn *amqp.Connection, queue string) (*rabbitPublisher, error) {
	channel, err := conn.Channel()
	if err != nil {
		return nil, err
	}
	return &rabbitPublisher{channel, queue}, channel.Confirm(false)
}

func (p *rabbitPublisher) begin(ctx context.Context, body []byte) (*amqp.DeferredConfirmation, error) {
	message := amqp.Publishing{DeliveryMode: amqp.Persistent, Body: body}
	return p.channel.PublishWithDeferredConfirmWithContext(ctx, "", p.queue, false, false, message)
}

func (p *rabbitPublisher) publish(ctx context.Context, body []byte) error {
	confirm, err := p.begin(ctx, body)
	if err != nil {
		return err
	}
	is, err := confirm.WaitContext(ctx)
	if err == nil && !is {
		err = errors.New("refused (nack)")
	}
	return err
}

func (p *rabbitPublisher) send(body []byte) (func() error, error) {
	confirm, err := p.begin(context.Background(), body)
	if err != nil {
		return nil, err
	}
	return func() error {
		if !confirm.Wait() {
			return errors.New("refused (nack)")
		}
		return nil
	}, nil
}

func (p *rabbitPublisher) batch(context.Context, []byte, int) error { return errNoBatches }

// declare makes a quorum queue of three, or finds it.
func declare(conn *amqp.Connection, queue string) error {
	channel, err := conn.Channel()
	if err != nil {
		return err
	}
	defer channel.Close()
	_, err = channel.QueueDeclare(queue, true, false, false, false, amqp.Table{
		"x-queue-type": "quorum", "x-quorum-initial-group-size": 3,
	})
	return err
}

func (r *rabbit) run(ctx context.Context, l load, length time.Duration, backlog int) (measure, error) {
	if l.Kind == batches {
		return measure{}, errNoBatches
	}
	r.queues++
	queue := fmt.Sprintf("load-%d", r.queues)
	// The node that a queue is declared at leads it.
	control, err := amqp.Dial(r.urls[0])
	if err != nil {
		return measure{}, err
	}
	defer control.Close()
	if err := declare(control, queue); err != nil {
		return measure{}, err
	}
	leader, err := r.leaderOf(ctx, queue)
	if err != nil {
		return measure{}, err
	}
	var conns []*amqp.Connection
	defer func() {
		for _, conn := range conns {
			_ = conn.Close()
		}
		if channel, err := control.Channel(); err == nil {
			_, _ = channel.QueueDelete(queue, false, false, false)
		}
	}()
	connect := func(int) (func() (publisher, error), error) {
		conn, err := amqp.Dial(r.urls[leader])
		if err != nil {
			return nil, err
		}
		conns = append(conns, conn)
		return func() (publisher, error) { return newRabbitPublisher(conn, queue) }, nil
	}
	publishers, err := openAll(l, connect)
	if err != nil {
		return measure{}, err
	}
	if l.Kind == receive {
		if err := fill(publishers, backlog); err != nil {
			return measure{}, err
		}
		return measured(r.pids(), func() (measure, error) { return receiveRabbit(ctx, queue, conns, backlog) })
	}
	return measured(r.pids(), func() (measure, error) { return drive(ctx, l, publishers, length), nil })
}

// receiveRabbit takes and acknowledges so many messages, until the server has seen every acknowledgement.
func receiveRabbit(ctx context.Context, queue string, conns []*amqp.Connection, count int) (measure, error) {
	begun := time.Now()
	var left atomic.Int64
	left.Store(int64(count))
	over, end := context.WithCancel(ctx)
	defer end()
	failures := make([]error, len(conns))
	var callers sync.WaitGroup
	for i, conn := range conns {
		callers.Go(func() {
			failures[i] = consumeAndAck(over, conn, queue, func(acknowledged int) {
				if left.Add(int64(-acknowledged)) <= 0 {
					end()
				}
			})
		})
	}
	callers.Wait()
	if err := errors.Join(append(failures, ctx.Err())...); err != nil {
		return measure{}, err
	}
	return measure{Messages: int64(count), PerSecond: float64(count) / time.Since(begun).Seconds()}, nil
}

// consumeAndAck goes on until over ends. What is held then is acknowledged, and the server has seen that.
func consumeAndAck(over context.Context, conn *amqp.Connection, queue string, acknowledged func(int)) error {
	channel, err := conn.Channel()
	if err != nil {
		return err
	}
	if err := channel.Qos(rabbitPrefetch, 0, false); err != nil {
		return err
	}
	deliveries, err := channel.Consume(queue, "", false, false, false, false, nil)
	if err != nil {
		return err
	}
	late := time.NewTicker(rabbitAckAfter)
	defer late.Stop()
	var last amqp.Delivery
	held := 0
	for {
		select {
		case <-over.Done():
			// Channels are closed in order with what was sent on them before.
			return channel.Close()
		case <-late.C:
		case delivery, ok := <-deliveries:
			if !ok {
				return errors.New("the server closed the channel")
			}
			last = delivery
			if held++; held < rabbitAcks {
				continue
			}
		}
		if held > 0 {
			if err := last.Ack(true); err != nil {
				return err
			}
			acknowledged(held)
			held = 0
		}
	}
}
