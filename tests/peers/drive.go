package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// A publisher publishes for one caller through the client library of a system.
type publisher interface {
	// publish returns when the message is acknowledged.
	publish(ctx context.Context, body []byte) error
	// send returns at once; what it gives back waits for the acknowledgement. They come in the order of sending.
	send(body []byte) (func() error, error)
	// batch publishes all or none, and returns when it is acknowledged.
	batch(ctx context.Context, body []byte, count int) error
}

// drive runs a load of publishers for a while. The publishers are open; opening them is not measured.
func drive(ctx context.Context, l load, publishers []publisher, length time.Duration) measure {
	var due *pace
	end := time.Now().Add(length)
	if l.Rate > 0 {
		due = startPace(l.Rate, length)
		end = due.end
	}
	when := func() (time.Time, bool) {
		if due != nil && ctx.Err() == nil {
			return due.next()
		}
		now := time.Now()
		return now, now.Before(end) && ctx.Err() == nil
	}
	counters := make([]*counter, len(publishers))
	var callers sync.WaitGroup
	for i, p := range publishers {
		c := &counter{end: end, late: l.Rate > 0}
		counters[i] = c
		callers.Go(func() {
			switch l.Kind {
			case batches:
				callBatches(ctx, p, c, l.Batch, when)
			case streamed:
				stream(p, c, l.Window, when)
			default:
				call(ctx, p, c, when)
			}
		})
	}
	callers.Wait()
	var missed []time.Duration
	if due != nil {
		missed = due.missed()
	}
	return sum(counters, missed, length)
}

func call(ctx context.Context, p publisher, c *counter, when func() (time.Time, bool)) {
	body := body()
	for begun, ok := when(); ok; begun, ok = when() {
		if err := p.publish(ctx, body); err != nil {
			c.failed(begun, err)
		} else {
			c.done(begun, 1)
		}
	}
}

func callBatches(ctx context.Context, p publisher, c *counter, count int, when func() (time.Time, bool)) {
	body := body()
	for begun, ok := when(); ok; begun, ok = when() {
		if err := p.batch(ctx, body, count); err != nil {
			c.failed(begun, err)
		} else {
			c.done(begun, count)
		}
	}
}

// stream has up to window messages under way. What is not due at a certain time waits for room first: its clock starts when it is
// handed over.
func stream(p publisher, c *counter, window int, when func() (time.Time, bool)) {
	type sent struct {
		begun  time.Time
		answer func() error
	}
	room, under := make(chan struct{}, window), make(chan sent, window)
	var listening sync.WaitGroup
	listening.Go(func() {
		for s := range under {
			if err := s.answer(); err != nil {
				c.failed(s.begun, err)
			} else {
				c.done(s.begun, 1)
			}
			<-room
		}
	})
	body := body()
	for {
		var begun time.Time
		var ok bool
		if c.late {
			begun, ok = when()
			room <- struct{}{}
		} else {
			room <- struct{}{}
			begun, ok = when()
		}
		if !ok {
			break
		}
		answer, err := p.send(body)
		if err != nil {
			answer = func() error { return err }
		}
		under <- sent{begun, answer}
	}
	close(under)
	listening.Wait()
}

// openAll opens a publisher for each caller with one function a connection.
func openAll(l load, connect func(number int) (func() (publisher, error), error)) ([]publisher, error) {
	var opens []func() (publisher, error)
	for number := range l.Connections {
		open, err := connect(number)
		if err != nil {
			return nil, fmt.Errorf("connection %d of %d: %w", number+1, l.Connections, err)
		}
		opens = append(opens, open)
	}
	var publishers []publisher
	for caller := range l.Callers {
		p, err := opens[caller%len(opens)]()
		if err != nil {
			return nil, fmt.Errorf("caller %d of %d: %w", caller+1, l.Callers, err)
		}
		publishers = append(publishers, p)
	}
	return publishers, nil
}
