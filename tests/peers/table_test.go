package main

import (
	"slices"
	"testing"
	"time"
)

func TestTheTableHasRatiosToOurs(t *testing.T) {
	of := func(name, system string, m measure, failure string) figure {
		for _, l := range loads {
			if l.Name == name {
				return figure{Load: l, System: system, Median: m, Failure: failure}
			}
		}
		t.Fatal(name)
		return figure{}
	}
	got := speeds([]figure{
		of("batches", "RaftQueue", measure{PerSecond: 139_400, P50: 20.06, P99: 45, P999: 101.4, ServerMicros: 10}, ""),
		of("batches", "NATS, default", measure{PerSecond: 85_600, P50: 9.5, ServerMicros: 25, Errors: 2, Missed: 1}, ""),
		of("batches", "RabbitMQ", measure{}, "it has no batches, and says so in a long line"),
		of("receive", "RabbitMQ", measure{PerSecond: 80_000}, ""),
		of("single", "RaftQueue", measure{}, "did not run"),
		of("single", "NATS, default", measure{PerSecond: 14_800}, ""),
	})
	const want = `LOAD                                 SYSTEM         MESSAGES/S  RATIO  P50 MS  P99 MS  P99.9 MS  SERVER US/MSG  RATIO  ERRORS
batches (NATS: 4 x 500)              RaftQueue         139,400  1.00x    20.1    45.0       101           10.0  1.00x       0
                                     NATS, default      85,600  0.61x    9.50       -         -           25.0  2.50x       3
                                     RabbitMQ       it has no batches, and says so in a long line
receive and ack, 4 x 256             RabbitMQ           80,000      -       -       -         -              -      -       0
one at a time, 32 on 32 connections  RaftQueue      did not run
                                     NATS, default      14,800      -       -       -         -              -      -       0
`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestThousandsStandApart(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1_000: "1,000", 12_345_678: "12,345,678"} {
		if got := grouped(n); got != want {
			t.Errorf("%d: %s, not %s", n, got, want)
		}
	}
}

func TestWhatWasAcknowledgedIsThereOnceOrIsTold(t *testing.T) {
	var p paused
	acknowledged := map[string]bool{"once": true, "twice": true, "gone": true}
	p.count(acknowledged, map[string]int{"once": 1, "twice": 2, "nobody was told": 1})
	if p.Acknowledged != 3 || p.Found != 2 || p.Missing != 1 || p.Doubled != 1 {
		t.Errorf("%+v", p)
	}
}

func TestTheLongestGapIsThatOfAllCallers(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	gap, wait := longest([]told{{"b", at(5), at(310)}, {"a", at(0), at(10)}, {"c", at(100), at(315)}})
	if gap != 300 || wait != 305 {
		t.Errorf("%v, %v", gap, wait)
	}
}

func TestAContentComesBackOutOfItsBody(t *testing.T) {
	body := padded("0-7-123")
	if len(body) != bodyBytes || contentOf(body) != "0-7-123" {
		t.Errorf("%d bytes, %q", len(body), contentOf(body))
	}
}

func TestOptionsThatMakeNoSenseAreRefused(t *testing.T) {
	for _, args := range [][]string{{"--loads", "fast"}, {"--systems", ""}, {"--rounds", "0"}, {"--output", "xml"}, {"more"}} {
		if _, err := parse(append(args, "--raftq", "/bin/true")); err == nil {
			t.Errorf("%q was taken", args)
		}
	}
	o, err := parse([]string{"--loads", "kills,batches", "--raftq", "/bin/true", "--systems", "raftqueue"})
	if err != nil || !slices.Equal(o.loads, []string{"batches", "kills"}) {
		t.Errorf("%v, %v", o.loads, err)
	}
}
