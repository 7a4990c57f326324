package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// The load while the leader is killed: moderate, so that what is seen is the pause, and not a machine that is full.
	killRate    = 1_000
	killCallers = 16
	// The leader is killed after this much of a load; its process is started again so much later.
	killAfter   = 2 * time.Second
	reviveAfter = 2 * time.Second
	killLength  = 15 * time.Second
	// What is still not acknowledged so long after the end is given up; whether it is there is unknown.
	killPatience = 30 * time.Second
	// Pause of a caller whose try failed.
	tryAgainAfter = 10 * time.Millisecond
)

// What the table of pauses does not say.
const pauseRemark = `%s/s are due, %d callers. PAUSE is the longest time between two acknowledgements of any callers, the median of the kills.
Callers begin spread over the nodes and try again until they are acknowledged: RaftQueue by HTTP in a session, at the next node, after %s
at most; NATS by its library with reconnects at any of the servers and a message id, after %s at most; RabbitMQ by a new connection to
the next node when theirs is lost (its library has no reconnects, and nothing tells a repeat from a new message). What was killed is
started again %s later.
`

// A paused system: what kills of its leader cost its clients.
type paused struct {
	// Victims is kills or kills-of-all.
	Victims string `json:"victims"`
	System  string `json:"system"`
	// Longest time between two acknowledgements of any callers, of each kill.
	Gaps []float64 `json:"gaps_ms"`
	// Longest time from when a message was due until it was acknowledged, of each kill.
	Waits []float64 `json:"waits_ms"`
	// Tries that failed, of those below that were acknowledged in the end.
	Failures     int64  `json:"failed_tries"`
	LastFailure  string `json:"last_failure,omitempty"`
	Acknowledged int    `json:"acknowledged"`
	// Never acknowledged.
	Unknown int `json:"unknown"`
	// Due, and never sent: all callers waited until the end.
	Unsent int `json:"unsent"`
	// Of what was acknowledged: what was there in the end, what was not, and what was there more than once.
	Found   int `json:"found"`
	Missing int `json:"missing"`
	Doubled int `json:"doubled"`
	// Why there are no figures.
	Failure string `json:"failure,omitempty"`
}

// pause kills the leader of a system, or all of its nodes, several times under an open loop, and then reads everything back.
func pause(ctx context.Context, s killable, victims string, count int, say func(string)) (paused, error) {
	result := paused{Victims: victims, System: s.name()}
	if err := s.prepare(ctx); err != nil {
		return result, err
	}
	acknowledged := map[string]bool{}
	for kill := range count {
		say(fmt.Sprintf("kill %d of %d", kill+1, count))
		if err := s.healthy(ctx); err != nil {
			return result, err
		}
		if err := result.once(ctx, s, kill, acknowledged); err != nil {
			return result, err
		}
	}
	if err := s.healthy(ctx); err != nil {
		return result, err
	}
	say("reading back")
	found, err := s.readAll(ctx)
	if err != nil {
		return result, err
	}
	result.count(acknowledged, found)
	return result, nil
}

// count compares what was acknowledged with what was there.
func (p *paused) count(acknowledged map[string]bool, found map[string]int) {
	p.Acknowledged = len(acknowledged)
	for content := range acknowledged {
		switch found[content] {
		case 0:
			p.Missing++
		case 1:
			p.Found++
		default:
			p.Found++
			p.Doubled++
		}
	}
}

// A told message was acknowledged.
type told struct {
	content string
	due, at time.Time
}

// once runs the load, kills the leader in it, or all, and starts again what was killed.
func (p *paused) once(ctx context.Context, s killable, kill int, acknowledged map[string]bool) error {
	ctx, cancel := context.WithTimeout(ctx, killLength+killPatience)
	defer cancel()
	callers := make([]caller, killCallers)
	for i := range callers {
		opened, err := s.caller(ctx, i)
		if err != nil {
			return err
		}
		defer opened.close()
		callers[i] = opened
	}
	leader, err := s.leader(ctx)
	if err != nil {
		return err
	}
	victims := []int{leader}
	if p.Victims == killsAll {
		victims = []int{0, 1, 2}
	}
	due := startPace(killRate, killLength)
	answers := make([][]told, len(callers))
	var unknown, failures atomic.Int64
	var last atomic.Value
	var calling sync.WaitGroup
	for i, c := range callers {
		calling.Go(func() {
			number := 0
			for when, ok := due.next(); ok; when, ok = due.next() {
				number++
				content := fmt.Sprintf("%d-%d-%d", kill, i, number)
				if tryUntil(ctx, c, number, padded(content), func(err error) {
					failures.Add(1)
					last.Store(err.Error())
				}) {
					answers[i] = append(answers[i], told{content, when, time.Now()})
				} else {
					unknown.Add(1)
				}
			}
		})
	}
	time.Sleep(time.Until(due.begun.Add(killAfter)))
	fault := each(victims, s.kill)
	if fault == nil {
		time.Sleep(reviveAfter)
		fault = each(victims, s.revive)
	}
	calling.Wait()
	if fault != nil {
		return fault
	}
	all := slices.Concat(answers...)
	for _, t := range all {
		acknowledged[t.content] = true
	}
	gap, wait := longest(all)
	p.Gaps, p.Waits = append(p.Gaps, gap), append(p.Waits, wait)
	p.Unknown += int(unknown.Load())
	p.Unsent += len(due.missed())
	p.Failures += failures.Load()
	if text, is := last.Load().(string); is {
		p.LastFailure = text
	}
	return nil
}

// each does something with all nodes at once.
func each(nodes []int, do func(int) error) error {
	faults := make([]error, len(nodes))
	var doing sync.WaitGroup
	for i, node := range nodes {
		doing.Go(func() { faults[i] = do(node) })
	}
	doing.Wait()
	return errors.Join(faults...)
}

// tryUntil publishes until it is acknowledged. False once the patience has ended.
func tryUntil(ctx context.Context, c caller, number int, body []byte, failed func(error)) bool {
	for ctx.Err() == nil {
		err := c.try(ctx, number, body)
		if err == nil {
			return true
		}
		failed(err)
		time.Sleep(tryAgainAfter)
		c.failed(err)
	}
	return false
}

// longest are the longest time between two acknowledgements and the longest wait for one, in milliseconds.
func longest(all []told) (gap, wait float64) {
	slices.SortFunc(all, func(a, b told) int { return a.at.Compare(b.at) })
	var gapped, waited time.Duration
	for i, t := range all {
		waited = max(waited, t.at.Sub(t.due))
		if i > 0 {
			gapped = max(gapped, t.at.Sub(all[i-1].at))
		}
	}
	return float64(gapped.Microseconds()) / 1_000, float64(waited.Microseconds()) / 1_000
}

// padded is a body of the usual size that begins with its content and a blank.
func padded(content string) []byte {
	bytes := []byte(content + " ")
	for len(bytes) < bodyBytes {
		bytes = append(bytes, 'a'+byte(len(bytes)%26))
	}
	return bytes
}

// contentOf is what padded was given.
func contentOf(body []byte) string {
	content := string(body)
	for i, b := range body {
		if b == ' ' {
			return content[:i]
		}
	}
	return content
}

// pauses is the table of all systems.
func pauses(all []paused) string {
	rows := [][]string{{
		"KILL -9 OF", "SYSTEM", "PAUSE MS", "OF EACH KILL", "LONGEST WAIT MS", "FAILED TRIES", "ACKNOWLEDGED", "MISSING", "DOUBLED",
		"UNKNOWN", "UNSENT",
	}}
	for i, p := range all {
		title := ""
		if i == 0 || all[i-1].Victims != p.Victims {
			title = map[string]string{kills: "the leader", killsAll: "all three at once"}[p.Victims]
		}
		if p.Failure != "" {
			rows = append(rows, []string{title, p.System, p.Failure})
			continue
		}
		var each, counts []string
		for _, gap := range p.Gaps {
			each = append(each, number(gap))
		}
		for _, count := range []int{int(p.Failures), p.Acknowledged, p.Missing, p.Doubled, p.Unknown, p.Unsent} {
			counts = append(counts, grouped(int64(count)))
		}
		row := []string{title, p.System, number(median(p.Gaps)), strings.Join(each, " "), number(slices.Max(p.Waits))}
		rows = append(rows, append(row, counts...))
	}
	return layout(rows) + fmt.Sprintf(pauseRemark, grouped(killRate), killCallers, callPatience, callPatience, reviveAfter)
}
