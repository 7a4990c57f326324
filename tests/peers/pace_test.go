package main

import (
	"context"
	"testing"
	"time"
)

// Who comes late is told when his message was due, not when he came.
func TestMessagesAreDueAtTheirRateWhoeverWaits(t *testing.T) {
	p := startPace(2_000, time.Hour)
	for before := range int64(5) {
		due, ok := p.next()
		if want := p.begun.Add(time.Duration(before) * 500 * time.Microsecond); !ok || !due.Equal(want) {
			t.Fatalf("message %d was due at %v (%v), not %v", before, due, ok, want)
		}
		if time.Now().Before(due) {
			t.Fatalf("message %d went before it was due", before)
		}
	}
}

func TestWhatNobodyTookBeforeTheEndIsMissed(t *testing.T) {
	p := startPace(2_000, time.Millisecond)
	for _, ok := p.next(); ok; _, ok = p.next() {
	}
	p.taken.Store(0)
	missed := p.missed()
	if len(missed) != 2 || missed[0] != time.Millisecond || missed[1] != 500*time.Microsecond {
		t.Errorf("%v", missed)
	}
}

// A stalled publisher answers each call after so long.
type stalled struct {
	publisher
	length time.Duration
}

func (s stalled) publish(context.Context, []byte) error {
	time.Sleep(s.length)
	return nil
}

// One caller and one stall: everything that came due in it shows it, whether it was sent or not.
func TestAStallIsSeenInAllThatCameDueInIt(t *testing.T) {
	const length = 100 * time.Millisecond
	m := drive(context.Background(), load{Kind: single, Callers: 1, Rate: 1_000}, []publisher{stalled{length: length}}, length)
	if m.Messages != 0 || m.Missed < 99 {
		t.Errorf("%d acknowledged in time, %d missed of 100", m.Messages, m.Missed)
	}
	if m.P50 < 50 {
		t.Errorf("half of them had waited %v ms only", m.P50)
	}
}
