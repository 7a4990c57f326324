#!/usr/bin/env bash
# nats-server 2.15.3, JetStream: acknowledgements that the server has confirmed are lost when its process is killed within
# some tens of milliseconds, though files and kernel live on: the messages are delivered again.
#
# One would guess: `DoubleAck` waits until the server has taken the acknowledgement, so that the message does not come again.
# Of what was answered, only a power cut can take something (the server flushes its files every two minutes): what it wrote
# lies with the kernel, and a killed process takes nothing from there.
# What happens: this holds for published messages, and for acknowledgements in a work queue, where the message itself goes. On
# a stream that keeps its messages, the consumer's position is written to its file a little later (up to about 100 ms here):
# all that was acknowledged since the last write is delivered again. (In a cluster with three replicas none was, in five
# rounds in which all three servers were killed at once.)
# Who meets it: consumers on Kubernetes that rely on DoubleAck for "exactly once": a node out of memory kills a process just so,
# with no time to write.
#
# Seen (100 messages acknowledged with DoubleAck, each without an error, then SIGKILL and a new start; three rounds):
#   kept: published 300, stored 300, acknowledged 300, delivered again 300
#   work: published 300, acknowledged 300, delivered again 0
#
# Needs: Go 1.26 or newer.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
GOBIN=$folder/bin go install github.com/nats-io/nats-server/v2@v2.15.3

cat >go.mod <<'END'
module example.org/acks

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
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	rounds = 3
	count  = 100
	wait   = time.Second
)

var (
	ctx    = context.Background()
	server *exec.Cmd
	conn   *nats.Conn
	js     jetstream.JetStream
)

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

// Starts the server on a free port of the loopback, on the files of an earlier one.
func start() {
	folder := must(os.MkdirTemp(".", "ports"))
	server = exec.Command("bin/nats-server", "-a", "127.0.0.1", "-p", "-1", "-js", "-sd", "store", "--ports_file_dir", folder)
	must(0, server.Start())
	var ports struct{ Nats []string }
	for len(ports.Nats) == 0 {
		time.Sleep(20 * time.Millisecond)
		for _, name := range must(filepath.Glob(folder + "/*.ports")) {
			_ = json.Unmarshal(must(os.ReadFile(name)), &ports)
		}
	}
	conn = must(nats.Connect(ports.Nats[0]))
	js = must(jetstream.New(conn))
}

func kill() {
	must(0, server.Process.Kill())
	_ = server.Wait()
	conn.Close()
}

// Takes and acknowledges messages until none has come for longer than an unacknowledged one would need to come again.
func drain(stream string, enough int) (taken int) {
	consumer := must(js.Consumer(ctx, stream, "c"))
	for taken < enough {
		message, err := consumer.Next(jetstream.FetchMaxWait(2*wait + wait/2))
		if err != nil {
			break
		}
		must(0, message.DoubleAck(ctx))
		taken++
	}
	return taken
}

func main() {
	start()
	for _, name := range []string{"kept", "work"} {
		config := jetstream.StreamConfig{Name: name, Subjects: []string{name}, Storage: jetstream.FileStorage}
		if name == "work" {
			config.Retention = jetstream.WorkQueuePolicy
		}
		must(js.CreateStream(ctx, config))
		must(js.CreateConsumer(ctx, name, jetstream.ConsumerConfig{
			Durable: "c", AckPolicy: jetstream.AckExplicitPolicy, AckWait: wait,
		}))
		acknowledged, again := 0, 0
		for range rounds {
			for range count {
				must(js.Publish(ctx, name, []byte("content")))
			}
			acknowledged += drain(name, count)
			kill()
			start()
			again += drain(name, rounds*count)
		}
		stored := must(must(js.Stream(ctx, name)).Info(ctx)).State.LastSeq
		fmt.Println(name, "published", rounds*count, "stored", stored, "acknowledged", acknowledged, "again", again)
	}
	kill()
}
END
go mod tidy 2>/dev/null
go run . | tee seen
again=$(sed -n 's/^kept published 300 stored 300 acknowledged 300 again //p' seen)
[ "${again:-0}" -gt 0 ] || { echo "changed: what was acknowledged on a stream that keeps its messages stays so"; exit 1; }
grep -qx 'work published 300 stored 300 acknowledged 300 again 0' seen || { echo "changed: the work queue does otherwise"; exit 1; }
