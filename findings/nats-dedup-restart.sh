#!/usr/bin/env bash
# nats-server 2.15.3, JetStream: message ids are forgotten at a restart if their messages are gone, and kept after a purge.
#
# One would guess: a `Nats-Msg-Id` is known for the stream's duplicate window (two minutes), whatever happens to the message
# and to the server, since the stream lies in files. Who purges a stream begins anew.
# What happens: the server keeps the ids in memory and, when it starts, reads them back from the messages that are still
# stored. In a work queue a message goes once it is acknowledged: after a restart its id is new again, and what a publisher
# sends again (it got no answer from the server that went down) is stored and worked on twice. On a stream that keeps its
# messages the same id is still a duplicate. And a purge takes no id away: the same data published into the emptied stream is
# acknowledged as a duplicate and stored nowhere, until the window has passed or the server was restarted.
# Who meets it: work queues whose publishers rely on ids for "exactly once" across a rolling update; tests and imports that
# purge a stream and fill it again.
#
# Seen:
#   before: work a: seq 1, duplicate true, stored 0 | kept a: seq 1, duplicate true, stored 1 | purged a: seq 1, duplicate true, stored 0
#   after:  work a: seq 2, duplicate false, stored 1 | kept a: seq 1, duplicate true, stored 1 | purged a: seq 2, duplicate false, stored 1
#
# Needs: Go 1.26 or newer.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
GOBIN=$folder/bin go install github.com/nats-io/nats-server/v2@v2.15.3

cat >go.mod <<'END'
module example.org/ids

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
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
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

func stop() {
	conn.Close()
	must(0, server.Process.Signal(syscall.SIGTERM))
	_ = server.Wait()
}

func publish(stream string) string {
	answer := must(js.Publish(ctx, stream, []byte("content"), jetstream.WithMsgID("a")))
	info := must(must(js.Stream(ctx, stream)).Info(ctx))
	return fmt.Sprintf("%s a: seq %d, duplicate %v, stored %d", stream, answer.Sequence, answer.Duplicate, info.State.Msgs)
}

func main() {
	start()
	streams := []string{"work", "kept", "purged"}
	for _, name := range streams {
		config := jetstream.StreamConfig{Name: name, Subjects: []string{name}, Storage: jetstream.FileStorage, Duplicates: 2 * time.Minute}
		if name == "work" {
			config.Retention = jetstream.WorkQueuePolicy
		}
		must(js.CreateStream(ctx, config))
		publish(name)
	}
	consumer := must(js.CreateConsumer(ctx, "work", jetstream.ConsumerConfig{Durable: "c", AckPolicy: jetstream.AckExplicitPolicy}))
	must(0, must(consumer.Next()).DoubleAck(ctx))
	must(0, must(js.Stream(ctx, "purged")).Purge(ctx))

	for _, when := range []string{"before", "after"} {
		var seen []string
		for _, name := range streams {
			seen = append(seen, publish(name))
		}
		fmt.Printf("%s: %s\n", when, strings.Join(seen, " | "))
		stop()
		if when == "before" {
			start()
		}
	}
}
END
go mod tidy 2>/dev/null
go run . | tee seen
cat >expected <<'END'
before: work a: seq 1, duplicate true, stored 0 | kept a: seq 1, duplicate true, stored 1 | purged a: seq 1, duplicate true, stored 0
after: work a: seq 2, duplicate false, stored 1 | kept a: seq 1, duplicate true, stored 1 | purged a: seq 2, duplicate false, stored 1
END
diff expected seen || { echo "changed: the ids are kept otherwise"; exit 1; }
