package main

import (
	"errors"
	"slices"
	"testing"
	"time"
)

func TestAPercentileIsOneOfTheWaits(t *testing.T) {
	var waits []time.Duration
	for i := range 1_000 {
		waits = append(waits, time.Duration(i+1)*time.Millisecond)
	}
	for part, want := range map[float64]float64{0.5: 500, 0.99: 990, 0.999: 999, 1: 1_000, 0: 1} {
		if got := percentile(waits, part); got != want {
			t.Errorf("%v: %v ms, not %v", part, got, want)
		}
	}
	if got := percentile(waits[:3], 0.5); got != 2 {
		t.Errorf("the middle of three is the second, not %v", got)
	}
	if got := percentile(nil, 0.5); got != 0 {
		t.Errorf("of nothing it is 0, not %v", got)
	}
}

func TestAMedianIsInTheMiddle(t *testing.T) {
	for want, numbers := range map[float64][]float64{0: nil, 2: {3, 1, 2}, 2.5: {4, 1, 3, 2}} {
		before := slices.Clone(numbers)
		if got := median(numbers); got != want {
			t.Errorf("%v: %v, not %v", numbers, got, want)
		}
		if !slices.Equal(before, numbers) {
			t.Errorf("the numbers were sorted in place: %v", numbers)
		}
	}
}

func TestRoundsHaveAMedianOfEachFigureAndTheSumOfFailures(t *testing.T) {
	m := medians([]measure{{PerSecond: 10, P99: 3, Errors: 1}, {PerSecond: 30, P99: 1, Missed: 2}, {PerSecond: 20, P99: 2}})
	if m.PerSecond != 20 || m.P99 != 2 || m.Errors != 1 || m.Missed != 2 {
		t.Errorf("%+v", m)
	}
}

// A closed loop leaves out what is answered after its end; an open one counts its wait, for that is the stall.
func TestWhatIsAnsweredAfterTheEndIsAWaitOfAnOpenLoopOnly(t *testing.T) {
	past := time.Now().Add(-time.Minute)
	for _, late := range []bool{false, true} {
		c := &counter{end: past, late: late}
		c.done(past, 1)
		c.failed(past, errors.New("lost"))
		want := 0
		if late {
			want = 2
		}
		if c.messages != 0 || c.errors != 1 || len(c.waits) != want {
			t.Errorf("late %v: %+v", late, c)
		}
	}
}

func TestWhatNobodyHadTimeForIsAWait(t *testing.T) {
	c := &counter{messages: 50, waits: []time.Duration{time.Millisecond}}
	m := sum([]*counter{c}, []time.Duration{5 * time.Second, 4 * time.Second}, 10*time.Second)
	if m.PerSecond != 5 || m.Missed != 2 || m.P50 != 4_000 || m.P999 != 5_000 {
		t.Errorf("%+v", m)
	}
}

func TestProcessorTimeIsReadBehindTheName(t *testing.T) {
	const stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 10 0 0 0 120 30 5 5 20 0 3 0 100 1000 10"
	ticks, err := ticksOf(stat)
	if err != nil || ticks != 150 {
		t.Errorf("%d, %v", ticks, err)
	}
	if _, err := ticksOf("7 (a) S 1"); err == nil {
		t.Error("too few fields are no processor time")
	}
}
