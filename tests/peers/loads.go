package main

import "fmt"

// What a load does.
const (
	batches  = "batches"
	streamed = "streamed"
	single   = "single"
	receive  = "receive"
)

// Bytes of a body.
const bodyBytes = 1024

// A load is work that is the same for every system.
type load struct {
	// Name is what --loads takes.
	Name string `json:"name"`
	// Kind is batches, streamed, single or receive.
	Kind string `json:"kind"`
	// Callers are producers, or consumers of a receive.
	Callers int `json:"callers"`
	// Connections that the callers share.
	Connections int `json:"connections"`
	// Window is how many messages, or batches, a caller has under way.
	Window int `json:"window"`
	// Batch is how many messages go together.
	Batch int `json:"batch"`
	// Rate is how many messages are due in a second; 0: as many as are acknowledged.
	Rate int `json:"rate,omitempty"`
}

// All loads, in the order in which they run.
var loads = []load{
	{Name: "batches", Kind: batches, Callers: 8, Connections: 8, Window: 8, Batch: 64},
	{Name: "streamed", Kind: streamed, Callers: 8, Connections: 8, Window: 256, Batch: 1},
	{Name: "single-shared", Kind: single, Callers: 32, Connections: 8, Window: 1, Batch: 1},
	{Name: "single", Kind: single, Callers: 32, Connections: 32, Window: 1, Batch: 1},
	{Name: "receive", Kind: receive, Callers: 4, Connections: 4, Window: 256, Batch: 256},
	{Name: "open-single", Kind: single, Callers: 32, Connections: 32, Window: 1, Batch: 1, Rate: 5_000},
	{Name: "open-streamed", Kind: streamed, Callers: 8, Connections: 8, Window: 256, Batch: 1, Rate: 20_000},
}

// What stands among the loads and is none: kill -9 of the leader, and of all nodes at once.
const (
	kills    = "kills"
	killsAll = "kills-of-all"
)

// title is a load in words, for the table.
func (l load) title() string {
	switch {
	case l.Rate > 0 && l.Kind == single:
		return fmt.Sprintf("%d/s are due, %d callers", l.Rate, l.Callers)
	case l.Rate > 0:
		return fmt.Sprintf("%d/s are due, %d streams", l.Rate, l.Callers)
	case l.Kind == batches:
		return "batches (NATS: 4 x 500)"
	case l.Kind == streamed:
		return fmt.Sprintf("streamed, %d x %d", l.Callers, l.Window)
	case l.Kind == receive:
		return fmt.Sprintf("receive and ack, %d x %d", l.Callers, l.Window)
	default:
		return fmt.Sprintf("one at a time, %d on %d connections", l.Callers, l.Connections)
	}
}

// body is 1 KiB that neither disk nor network can make smaller.
func body() []byte {
	state := uint64(0x9e3779b97f4a7c15)
	bytes := make([]byte, bodyBytes)
	for i := range bytes {
		state ^= state << 13
		state ^= state >> 7
		state ^= state << 17
		bytes[i] = byte(state)
	}
	return bytes
}
