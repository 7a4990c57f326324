package main

import (
	"slices"
	"time"
)

// A counter is what one caller counts; no lock, one caller each.
type counter struct {
	end      time.Time
	messages int64
	errors   int64
	last     string
	waits    []time.Duration
	// Latencies of what is answered after the end count, too (an open loop).
	late bool
}

// done counts so many messages that were begun, or due, at begun and are acknowledged now.
func (c *counter) done(begun time.Time, messages int) {
	now := time.Now()
	if now.Before(c.end) {
		c.messages += int64(messages)
	} else if !c.late {
		return
	}
	c.waits = append(c.waits, now.Sub(begun))
}

// failed counts what was not acknowledged. In an open loop whoever waited for it has waited so long.
func (c *counter) failed(begun time.Time, err error) {
	c.errors++
	c.last = err.Error()
	if c.late {
		c.waits = append(c.waits, time.Since(begun))
	}
}

// A measure is what one run of a load gave. Times are milliseconds; without latencies they are 0.
type measure struct {
	PerSecond float64 `json:"messages_per_second"`
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
	P999      float64 `json:"p999_ms"`
	Messages  int64   `json:"messages"`
	Missed    int64   `json:"missed"`
	Errors    int64   `json:"errors"`
	LastError string  `json:"last_error,omitempty"`
	// ServerMicros is processor time (user and system) of all servers for an acknowledged message.
	ServerMicros float64 `json:"server_us_per_message"`
}

// sum puts together what the callers counted within length, and what nobody had time to send.
func sum(counters []*counter, missed []time.Duration, length time.Duration) measure {
	m := measure{Missed: int64(len(missed))}
	waits := missed
	for _, c := range counters {
		m.Messages += c.messages
		m.Errors += c.errors
		if c.last != "" {
			m.LastError = c.last
		}
		waits = append(waits, c.waits...)
	}
	slices.Sort(waits)
	m.PerSecond = float64(m.Messages) / length.Seconds()
	m.P50, m.P99, m.P999 = percentile(waits, 0.5), percentile(waits, 0.99), percentile(waits, 0.999)
	return m
}

// percentile is the smallest of the sorted waits that at least this part of them does not exceed, in milliseconds.
func percentile(sorted []time.Duration, part float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(part * float64(len(sorted)))
	if float64(rank) < part*float64(len(sorted)) {
		rank++
	}
	return float64(sorted[max(rank, 1)-1]) / float64(time.Millisecond)
}

// median of some numbers; of an even count the mean of the middle two.
func median(numbers []float64) float64 {
	if len(numbers) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(numbers))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// medians of each figure of several rounds; counts of failures are summed.
func medians(rounds []measure) measure {
	of := func(figure func(measure) float64) float64 {
		var numbers []float64
		for _, round := range rounds {
			numbers = append(numbers, figure(round))
		}
		return median(numbers)
	}
	m := measure{
		PerSecond:    of(func(m measure) float64 { return m.PerSecond }),
		P50:          of(func(m measure) float64 { return m.P50 }),
		P99:          of(func(m measure) float64 { return m.P99 }),
		P999:         of(func(m measure) float64 { return m.P999 }),
		ServerMicros: of(func(m measure) float64 { return m.ServerMicros }),
	}
	for _, round := range rounds {
		m.Messages += round.Messages
		m.Missed += round.Missed
		m.Errors += round.Errors
		if round.LastError != "" {
			m.LastError = round.LastError
		}
	}
	return m
}
