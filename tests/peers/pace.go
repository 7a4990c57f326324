package main

import (
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
)

// The clock's shortest sleep. The system wakes a thread about as late.
const clockStep = 50 * time.Microsecond

// A pace is an open loop: messages are due at a fixed rate, whether or not those before them are answered, and latency counts
// from when a message was due. A load that waits for its answers asks less often while a system stands still, and hardly sees it.
type pace struct {
	begun time.Time
	// When the last one has come due.
	end   time.Time
	rate  float64
	total int64
	// Holds one for each that is due and that nobody has taken; closed at the end.
	due   chan struct{}
	taken atomic.Int64
}

// startPace starts the clock: a thread of its own, since timers of the runtime may be a millisecond late.
func startPace(rate int, length time.Duration) *pace {
	total := int64(float64(rate) * length.Seconds())
	begun := time.Now()
	p := &pace{begun: begun, end: begun.Add(length), rate: float64(rate), total: total, due: make(chan struct{}, total)}
	go p.run()
	return p
}

func (p *pace) run() {
	runtime.LockOSThread()
	for told := int64(0); told < p.total; {
		wait := time.Until(p.dueAt(told))
		if wait <= 0 {
			p.due <- struct{}{}
			told++
			continue
		}
		nap := syscall.NsecToTimespec(int64(max(wait, clockStep)))
		_ = syscall.Nanosleep(&nap, nil)
	}
	time.Sleep(time.Until(p.end))
	close(p.due)
}

// dueAt says when a message is due that so many go before.
func (p *pace) dueAt(before int64) time.Time {
	return p.begun.Add(time.Duration(float64(before) / p.rate * float64(time.Second)))
}

// next waits until a message is due and says when it was. False once the end has come.
func (p *pace) next() (time.Time, bool) {
	if !time.Now().Before(p.end) {
		return time.Time{}, false
	}
	if _, ok := <-p.due; !ok {
		return time.Time{}, false
	}
	return p.dueAt(p.taken.Add(1) - 1), true
}

// missed are the waits, until the end, of those that came due and that nobody had time to send.
func (p *pace) missed() []time.Duration {
	var waits []time.Duration
	for before := p.taken.Load(); before < p.total; before++ {
		waits = append(waits, p.end.Sub(p.dueAt(before)))
	}
	return waits
}
