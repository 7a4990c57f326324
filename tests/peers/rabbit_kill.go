package main

import (
	"context"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Where the callers of the pause publish.
const rabbitPause = "pause"

// A rabbitCaller waits for the confirm of each message as long as its connection lives.
type rabbitCaller struct {
	r    *rabbit
	node int
	conn *amqp.Connection
	*rabbitPublisher
}

func (r *rabbit) prepare(context.Context) error {
	conn, err := amqp.Dial(r.urls[0])
	if err != nil {
		return err
	}
	defer conn.Close()
	return declare(conn, rabbitPause)
}

func (r *rabbit) caller(_ context.Context, number int) (caller, error) {
	c := &rabbitCaller{r: r, node: number % 3}
	return c, c.connect()
}

func (c *rabbitCaller) connect() (err error) {
	c.conn, err = amqp.DialConfig(c.r.urls[c.node], amqp.Config{Dial: amqp.DefaultDial(callPatience)})
	if err != nil {
		return err
	}
	c.rabbitPublisher, err = newRabbitPublisher(c.conn, rabbitPause)
	return err
}

func (c *rabbitCaller) try(ctx context.Context, _ int, body []byte) error {
	if c.rabbitPublisher == nil {
		if err := c.connect(); err != nil {
			return err
		}
	}
	return c.publish(ctx, body)
}

// failed goes on at the next node.
func (c *rabbitCaller) failed(error) {
	c.close()
	c.rabbitPublisher = nil
	c.node = (c.node + 1) % 3
}

func (c *rabbitCaller) close() {
	if c.conn != nil {
		_ = c.conn.Close()
	}
}

func (r *rabbit) leader(ctx context.Context) (int, error) { return r.leaderOf(ctx, rabbitPause) }

func (r *rabbit) kill(node int) error {
	r.nodes[node].kill()
	return nil
}

func (r *rabbit) healthy(ctx context.Context) error {
	return until(ctx, "all members being online", func() error {
		queue, err := r.look(ctx, rabbitPause)
		if err != nil {
			return err
		}
		if len(queue.Online) != 3 {
			return fmt.Errorf("online: %v", queue.Online)
		}
		return nil
	})
}

func (r *rabbit) readAll(ctx context.Context) (map[string]int, error) {
	conn, err := amqp.Dial(r.urls[0])
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	channel, err := conn.Channel()
	if err != nil {
		return nil, err
	}
	if err := channel.Qos(rabbitPrefetch, 0, false); err != nil {
		return nil, err
	}
	deliveries, err := channel.Consume(rabbitPause, "", false, false, false, false, nil)
	if err != nil {
		return nil, err
	}
	found := map[string]int{}
	for {
		select {
		case delivery, ok := <-deliveries:
			if !ok {
				return nil, fmt.Errorf("the server closed the channel after %d", len(found))
			}
			found[contentOf(delivery.Body)]++
			if err := delivery.Ack(false); err != nil {
				return nil, err
			}
		case <-time.After(3 * time.Second):
			return found, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
