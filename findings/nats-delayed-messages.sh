#!/usr/bin/env bash
# nats-server 2.15.3 and nats.go 1.55.0: of several delayed messages on one subject only the last is delivered; and a delay
# made with `WithScheduleAt` ends up to a second early.
#
# One would guess: each delayed message that was acknowledged with a number of its own is delivered, and none before its time.
# What happens: a subject holds one schedule. The next message to the same subject takes its place, though each got a new number
# and an answer without a warning; the first are never delivered. Delayed messages need a subject each (an id in its last
# part). The client cuts the time down to whole seconds, so that a message is delivered up to a second before the time that was
# asked for. The delivered message has lost its `Nats-Msg-Id`.
# Who meets it: who moves retries "in 2.5 seconds" from a queue with delayed messages to JetStream and sends them all to
# `jobs.later`.
#
# Seen (three messages to later.same and one to each of later.own.0, 1, 2; all for 2.9 seconds after a whole second):
#   answers: [1 2 3 4 5 6]
#   delivered: [later.own.0 later.own.1 later.own.2 later.same] of later.same only the last: true ids: []
#   early by 899 ms
#
# Needs: Go 1.26 or newer.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
GOBIN=$folder/bin go install github.com/nats-io/nats-server/v2@v2.15.3

cat >go.mod <<'END'
module example.org/later

go 1.26.0

require github.com/nats-io/nats.go v1.55.0
END
cat >main.go <<'END'
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

var server *exec.Cmd

func must[T any](value T, err error) T {
	if err != nil {
		if server != nil {
			_ = server.Process.Kill()
		}
		fmt.Println("changed:", err)
		os.Exit(1)
	}
	return value
}

// Starts the server on a free port of the loopback.
func start() *nats.Conn {
	server = exec.Command("bin/nats-server", "-a", "127.0.0.1", "-p", "-1", "-js", "-sd", "store", "--ports_file_dir", ".")
	must(0, server.Start())
	var ports struct{ Nats []string }
	for len(ports.Nats) == 0 {
		time.Sleep(20 * time.Millisecond)
		for _, name := range must(filepath.Glob("*.ports")) {
			_ = json.Unmarshal(must(os.ReadFile(name)), &ports)
		}
	}
	return must(nats.Connect(ports.Nats[0]))
}

func main() {
	js := must(jetstream.New(start()))
	defer func() { _ = server.Process.Kill() }()
	ctx := context.Background()
	must(js.CreateStream(ctx, jetstream.StreamConfig{
		Name: "jobs", Subjects: []string{"later.>", "jobs"}, Storage: jetstream.FileStorage, AllowMsgSchedules: true,
	}))
	consumer := must(js.CreateConsumer(ctx, "jobs", jetstream.ConsumerConfig{FilterSubject: "jobs"}))

	at := time.Now().Truncate(time.Second).Add(2900 * time.Millisecond)
	var numbers []uint64
	send := func(subject, content string) {
		answer := must(js.Publish(ctx, subject, []byte(content), jetstream.WithScheduleAt(at),
			jetstream.WithScheduleTarget("jobs"), jetstream.WithMsgID(subject+content)))
		numbers = append(numbers, answer.Sequence)
	}
	for i := range 3 {
		send("later.same", fmt.Sprint(i))
		send(fmt.Sprintf("later.own.%d", i), fmt.Sprint(i))
	}
	fmt.Println("answers:", numbers)

	var delivered, ids []string
	var early time.Duration
	last := true
	for {
		message, err := consumer.Next(jetstream.FetchMaxWait(5 * time.Second))
		if err != nil {
			break
		}
		if early == 0 {
			early = time.Until(at)
		}
		from := message.Headers().Get("Nats-Scheduler")
		if from == "later.same" {
			last = last && string(message.Data()) == "2"
		}
		delivered = append(delivered, from)
		if id := message.Headers().Get("Nats-Msg-Id"); id != "" {
			ids = append(ids, id)
		}
		must(0, message.Ack())
	}
	slices.Sort(delivered)
	fmt.Println("delivered:", delivered, "of later.same only the last:", last, "ids:", ids)
	fmt.Println("early by more than 0.2 s:", early > 200*time.Millisecond)
	fmt.Fprintln(os.Stderr, "early by", early)
}
END
go mod tidy 2>/dev/null
go run . | tee seen
cat >expected <<'END'
answers: [1 2 3 4 5 6]
delivered: [later.own.0 later.own.1 later.own.2 later.same] of later.same only the last: true ids: []
early by more than 0.2 s: true
END
diff expected seen || { echo "changed: delayed messages are delivered otherwise"; exit 1; }
