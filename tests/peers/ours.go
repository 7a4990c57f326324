package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A raftqueue is `raftq up --nodes 3`, loaded by `raftq bench`.
type raftqueue struct {
	raftq  string
	folder string
	base   int
	up     *process
	queues int
}

func (r *raftqueue) key() string  { return "raftqueue" }
func (r *raftqueue) name() string { return "RaftQueue" }

func (r *raftqueue) version() string {
	said, err := exec.Command(r.raftq, "--version").Output()
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(said))
}

func (r *raftqueue) settings() string {
	return "raftq up --nodes 3, its defaults: fdatasync on a majority before each acknowledgement; loaded by raftq bench; " +
		"batches of 64 with 8 under way; receive acknowledges 256 at once, confirmed by a majority"
}

func (r *raftqueue) start(ctx context.Context, folder string) error {
	r.folder = filepath.Join(folder, "data")
	ports, err := freePorts(1)
	if err != nil {
		return err
	}
	// Thirty ports from there on; above those that the kernel gives out.
	r.base = 61_000 + ports[0]%4_000
	r.up, err = launch(filepath.Join(folder, "raftq.log"), nil, r.raftq, "up", "--nodes", "3",
		"--base-port", strconv.Itoa(r.base), "--data-dir", r.folder)
	if err != nil {
		return err
	}
	return until(ctx, "forming a cluster", func() error {
		if !r.up.runs() {
			return fmt.Errorf("raftq up ended: see %s/raftq.log", folder)
		}
		_, err := r.leader(ctx)
		return err
	})
}

func (r *raftqueue) stop() { stopAll([]*process{r.up}) }

func (r *raftqueue) endpoint(node int) string { return fmt.Sprintf("127.0.0.1:%d", r.base+10*node) }

func (r *raftqueue) endpoints() string {
	return strings.Join([]string{r.endpoint(0), r.endpoint(1), r.endpoint(2)}, ",")
}

// pid of a node, as `raftq up` wrote it.
func (r *raftqueue) pid(node int) int {
	text, _ := os.ReadFile(filepath.Join(r.folder, fmt.Sprintf("node-%d.pid", node)))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return pid
}

func (r *raftqueue) pids() []int { return []int{r.pid(0), r.pid(1), r.pid(2)} }

func (r *raftqueue) run(ctx context.Context, l load, length time.Duration, backlog int) (measure, error) {
	r.queues++
	args := []string{"bench"}
	seconds := strconv.Itoa(int(length.Seconds()))
	if l.Kind == receive {
		args = append(args, "consume", "--consumers", strconv.Itoa(l.Callers), "--batch", strconv.Itoa(l.Batch),
			"--backlog", strconv.Itoa(backlog), "--size", strconv.Itoa(bodyBytes), "--seconds", "600")
	} else {
		args = append(args, "publish", "--producers", strconv.Itoa(l.Callers), "--connections", strconv.Itoa(l.Connections),
			"--batch", strconv.Itoa(l.Batch), "--window", strconv.Itoa(l.Window), "--size", strconv.Itoa(bodyBytes),
			"--seconds", seconds)
		if l.Kind == single {
			args = append(args, "--unary")
		}
		if l.Rate > 0 {
			args = append(args, "--rate", strconv.Itoa(l.Rate))
		}
	}
	args = append(args, "--topic", fmt.Sprintf("load-%d", r.queues), "--endpoints", r.endpoints(), "--output", "json")
	if l.Kind == receive {
		// The processor time around it would be that of publishing the backlog, too: `bench` asks the nodes before and after.
		m, err := r.bench(ctx, args)
		// The others' acknowledgements are not answered and have no latency to compare with.
		m.P50, m.P99, m.P999 = 0, 0, 0
		return m, err
	}
	return measured(r.pids(), func() (measure, error) { return r.bench(ctx, args) })
}

// bench runs `raftq bench` and reads the object that it prints.
func (r *raftqueue) bench(ctx context.Context, args []string) (measure, error) {
	said, err := output(ctx, nil, r.raftq, args...)
	if err != nil {
		return measure{}, err
	}
	var seen struct {
		measure
		Acknowledged int64    `json:"acknowledged"`
		Micros       *float64 `json:"cpu_us_per_message"`
	}
	if err := json.Unmarshal(said, &seen); err != nil {
		return measure{}, fmt.Errorf("raftq bench said no JSON: %w", err)
	}
	m := seen.measure
	m.Messages = seen.Acknowledged
	if seen.Micros != nil {
		m.ServerMicros = *seen.Micros
	}
	return m, nil
}

func (r *raftqueue) leader(ctx context.Context) (int, error) {
	said, err := output(ctx, nil, r.raftq, "status", "--leader", "--timeout", "2s", "--endpoints", r.endpoints())
	if err != nil {
		return 0, err
	}
	name := strings.TrimSpace(string(said))
	node, err := strconv.Atoi(strings.TrimPrefix(name, "node-"))
	if err != nil {
		return 0, fmt.Errorf("raftq status names %q as its leader", name)
	}
	return node, nil
}
