package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"
)

// What --systems takes, in the order of the table.
var keys = []string{"raftqueue", "nats", "nats-always", "rabbitmq"}

// newSystem makes a system that is not started yet.
func newSystem(key string, o options, nats string) system {
	switch key {
	case "raftqueue":
		return &raftqueue{raftq: o.raftq}
	case "rabbitmq":
		return &rabbit{install: o.install}
	default:
		return &natsCluster{sync: key == "nats-always", program: nats}
	}
}

// A comparison that is under way.
type comparison struct {
	options
	folder string
	// nats-server, and why there is none.
	nats    string
	natless error
	report  report
	rounds  map[[2]string][]measure
	failed  map[[2]string]string
	// Systems that did not start.
	lacking map[string]string
}

// compare runs everything. An interruption ends it with an error, when all that it started has ended.
func compare(ctx context.Context, o options) (report, error) {
	folder, err := os.MkdirTemp(o.folder, "raftqueue-peers-")
	if err != nil {
		return report{}, err
	}
	defer os.RemoveAll(folder)
	c := &comparison{
		options: o, folder: folder, nats: o.nats,
		rounds: map[[2]string][]measure{}, failed: map[[2]string]string{}, lacking: map[string]string{},
	}
	c.report = report{Conditions: conditionsOf(o), Systems: []tested{}, Figures: []figure{}, Pauses: []paused{}}
	if o.nats == "" && (slices.Contains(o.systems, "nats") || slices.Contains(o.systems, "nats-always")) {
		c.say("building nats-server")
		c.nats, c.natless = buildNats(ctx, folder)
	}
	if len(c.chosen()) > 0 {
		for round := range o.rounds {
			for _, key := range o.systems {
				c.turn(ctx, key, fmt.Sprintf("round %d of %d", round+1, o.rounds), c.speeds)
			}
		}
	}
	for _, victims := range []string{kills, killsAll} {
		if !slices.Contains(o.loads, victims) {
			continue
		}
		for _, key := range o.systems {
			c.turn(ctx, key, victims, func(ctx context.Context, _ string, s system, what string) { c.pause(ctx, s, victims, what) })
		}
	}
	c.sum()
	return c.report, ctx.Err()
}

func (c *comparison) say(text string) { fmt.Fprintln(os.Stderr, text) }

// chosen are the loads that are wanted.
func (c *comparison) chosen() []load {
	return slices.DeleteFunc(slices.Clone(loads), func(l load) bool { return !slices.Contains(c.loads, l.Name) })
}

// turn starts a system on empty files, has something done with it, and stops it.
func (c *comparison) turn(ctx context.Context, key, what string, do func(context.Context, string, system, string)) {
	if c.lacking[key] != "" || ctx.Err() != nil {
		return
	}
	s := newSystem(key, c.options, c.nats)
	if _, is := s.(*natsCluster); is && c.natless != nil {
		c.lacking[key] = c.natless.Error()
		return
	}
	what += ": " + s.name()
	c.say(what + ": starting")
	folder, err := os.MkdirTemp(c.folder, key+"-")
	if err == nil {
		defer os.RemoveAll(folder)
		defer s.stop()
		err = s.start(ctx, folder)
	}
	if err != nil {
		if ctx.Err() == nil {
			c.lacking[key] = err.Error()
			c.say(what + ": " + err.Error())
		}
		return
	}
	do(ctx, key, s, what)
}

func (c *comparison) speeds(ctx context.Context, key string, s system, what string) {
	for _, l := range c.chosen() {
		of := [2]string{l.Name, key}
		if c.failed[of] != "" || ctx.Err() != nil {
			continue
		}
		seconds := c.seconds
		if l.Rate > 0 {
			seconds = c.openSeconds
		}
		m, err := s.run(ctx, l, time.Duration(seconds)*time.Second, c.backlog)
		if err != nil {
			c.failed[of] = err.Error()
			c.say(what + ": " + l.Name + ": " + err.Error())
			continue
		}
		c.rounds[of] = append(c.rounds[of], m)
		c.say(fmt.Sprintf("%s: %s: %s/s, p50 %s ms, p99 %s ms, servers %s us", what, l.Name, number(m.PerSecond), number(m.P50),
			number(m.P99), number(m.ServerMicros)))
	}
}

func (c *comparison) pause(ctx context.Context, s system, victims, what string) {
	result, err := pause(ctx, s.(killable), victims, c.kills, func(text string) { c.say(what + ": " + text) })
	if err != nil {
		result.Failure = err.Error()
		c.say(what + ": " + err.Error())
	}
	c.report.Pauses = append(c.report.Pauses, result)
}

// sum puts the report together.
func (c *comparison) sum() {
	for _, key := range c.systems {
		s := newSystem(key, c.options, c.nats)
		t := tested{System: s.name(), Settings: s.settings(), Failure: c.lacking[key]}
		if t.Failure == "" {
			t.Version = s.version()
		}
		c.report.Systems = append(c.report.Systems, t)
	}
	for _, l := range c.chosen() {
		for _, key := range c.systems {
			of := [2]string{l.Name, key}
			f := figure{Load: l, System: newSystem(key, c.options, c.nats).name(), Rounds: c.rounds[of], Failure: c.failed[of]}
			switch {
			case c.lacking[key] != "" && len(f.Rounds) == 0:
				f.Failure = "did not run"
			case f.Failure == "":
				f.Median = medians(f.Rounds)
			}
			c.report.Figures = append(c.report.Figures, f)
		}
	}
}
