package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// How long a server may take to stop before it is killed.
	stopPatience = 20 * time.Second
	// How long a cluster may take until it serves.
	startPatience = 120 * time.Second
	// Processor time in /proc is counted in hundredths of a second, on every Linux.
	tick = 10 * time.Millisecond
)

// A process is a server that this program started. It has a group of its own, so that Ctrl-C is for this program alone, and the
// kernel kills it should this program die: asked to stop, a node of RabbitMQ would start another epmd.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
}

var starts = make(chan func())

// The kernel tells a child that its parent died when the thread ends that started it: this one does not.
func init() {
	go func() {
		runtime.LockOSThread()
		for start := range starts {
			start()
		}
	}()
}

// begin starts a program in a group of its own, which this program does not outlive.
func begin(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	starts <- func() { started <- cmd.Start() }
	return <-started
}

// output runs a program and returns what it prints. The error has what it says of itself.
func output(ctx context.Context, env []string, name string, args ...string) ([]byte, error) {
	var said, complained bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), env...), &said, &complained
	err := begin(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", filepath.Base(name), err, strings.TrimSpace(complained.String()))
	}
	return said.Bytes(), nil
}

// launch starts a program, and appends what it says to a file.
func launch(log string, env []string, name string, args ...string) (*process, error) {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = file, file
	cmd.Env = append(os.Environ(), env...)
	if err := begin(cmd); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, ended: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) runs() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// kill is kill -9.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// stopAll asks them to stop, waits, and kills who does not.
func stopAll(processes []*process) {
	for _, p := range processes {
		if p != nil && p.runs() {
			_ = p.cmd.Process.Signal(syscall.SIGTERM)
		}
	}
	patience := time.After(stopPatience)
	for _, p := range processes {
		if p == nil {
			continue
		}
		select {
		case <-p.ended:
		case <-patience:
			p.kill()
		}
	}
}

// processorTime is what these processes have used so far, user and system.
func processorTime(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		used, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, err
		}
		ticks, err := ticksOf(string(used))
		if err != nil {
			return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		sum += time.Duration(ticks) * tick
	}
	return sum, nil
}

// ticksOf adds the fields utime and stime. The name in parentheses may have blanks and parentheses.
func ticksOf(stat string) (int64, error) {
	fields := strings.Fields(stat[strings.LastIndex(stat, ")")+1:])
	if len(fields) < 13 {
		return 0, errors.New("it has too few fields")
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	system, other := strconv.ParseInt(fields[12], 10, 64)
	return user + system, errors.Join(err, other)
}

// until asks again until it is so, at most for startPatience. The error says what was wrong last.
func until(ctx context.Context, what string, ask func() error) error {
	deadline := time.Now().Add(startPatience)
	for {
		err := ask()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s took longer than %s: %w", what, startPatience, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// freePorts are ports of the loopback that nobody listens on.
func freePorts(count int) ([]int, error) {
	var ports []int
	for range count {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		// Open until all are found, so that none comes twice.
		defer listener.Close()
		ports = append(ports, listener.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
