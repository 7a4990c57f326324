package main

import (
	"context"
	"time"
)

// How long the clients of all systems wait for one acknowledgement before they try again, where they do.
const callPatience = time.Second

// A system is a cluster of three nodes under load.
type system interface {
	// key is what --systems takes, name what stands in tables.
	key() string
	name() string
	// version of what runs, and every setting that is not the default.
	version() string
	settings() string
	// start returns when the cluster serves. stop ends all its processes, also after a start that failed.
	start(ctx context.Context, folder string) error
	stop()
	// pids of the servers.
	pids() []int
	// run puts a load on a queue of its own.
	run(ctx context.Context, l load, length time.Duration, backlog int) (measure, error)
}

// A killable system tells its leader, loses it, and gets it back.
type killable interface {
	system
	// prepare makes the queue that the callers publish to.
	prepare(ctx context.Context) error
	// caller connects a client; its first node is that of its number.
	caller(ctx context.Context, number int) (caller, error)
	// leader of that queue, as a number of a node.
	leader(ctx context.Context) (int, error)
	// kill is kill -9 of a node's process.
	kill(node int) error
	// revive starts it again, on its files.
	revive(node int) error
	// healthy returns when all nodes have all that is acknowledged.
	healthy(ctx context.Context) error
	// readAll takes everything out of the queue: how often each content was there.
	readAll(ctx context.Context) (map[string]int, error)
}

// A caller publishes one message after another, once: a try, which its system may repeat itself.
type caller interface {
	try(ctx context.Context, number int, body []byte) error
	// failed lets it connect anew where its library does not.
	failed(err error)
	close()
}

// measured runs a load and adds what the servers used for a message.
func measured(pids []int, work func() (measure, error)) (measure, error) {
	before, err := processorTime(pids)
	if err != nil {
		return measure{}, err
	}
	m, err := work()
	if err != nil {
		return measure{}, err
	}
	after, err := processorTime(pids)
	if err != nil {
		return measure{}, err
	}
	if m.Messages > 0 {
		m.ServerMicros = float64((after - before).Microseconds()) / float64(m.Messages)
	}
	return m, nil
}
