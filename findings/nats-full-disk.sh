#!/usr/bin/env bash
# nats-server 2.15.3, JetStream: after one write that found the disk full, a stream takes no message until the server is
# restarted, though there is space again; and its publishers get no answer.
#
# One would guess: a publish that finds no space gets an error that says so (as one that meets a stream's own limit does),
# and once space was made, publishing goes on.
# What happens: the publish gets no answer at all, so that the client waits until its time runs out and cannot tell a full
# disk from a lost network. Once space was made, each further publish to that stream goes unanswered too, and the log repeats
# "no space left on device". A stream that met no failed write takes messages. /healthz names the stream and answers 503, but
# its two lighter forms, those that do not look into streams, answer 200. After a restart all that was acknowledged is there,
# and publishing goes on.
# Who meets it: a volume in Kubernetes that was full and was made larger. That is not enough: the pod must be restarted, which
# no liveness probe does that asks /healthz?js-enabled-only=true.
#
# Seen (a file system of 24 MB, half of it taken by another file; messages of 100,000 bytes):
#   acknowledged until the disk was full: 125
#   full: context deadline exceeded
#   space again: context deadline exceeded
#   /healthz: {"status":"unavailable","error":"JetStream stream '$G > jobs' write error: ... no space left on device"}
#   /healthz: 503
#   /healthz?js-server-only=true: 200
#   /healthz?js-enabled-only=true: 200
#   another stream: acknowledged
#   restarted: all there: true
#   restarted: acknowledged
#
# Needs: Go 1.26 or newer, Linux, and root (it mounts a tmpfs of its own).
set -euo pipefail
folder=$(mktemp -d)
trap 'umount -q "$folder/disk" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
GOBIN=$folder/bin go install github.com/nats-io/nats-server/v2@v2.15.3
mkdir disk
mount -t tmpfs -o size=24m tmpfs disk

cat >go.mod <<'END'
module example.org/full

go 1.26.0

require github.com/nats-io/nats.go v1.55.0
END
cat >main.go <<'END'
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
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
	health string
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

// Starts the server on free ports of the loopback, on the files of an earlier one.
func start() {
	folder := must(os.MkdirTemp(".", "ports"))
	server = exec.Command("bin/nats-server", "-a", "127.0.0.1", "-p", "-1", "-m", "-1", "-c", "conf", "--ports_file_dir", folder)
	must(0, server.Start())
	var ports struct{ Nats, Monitoring []string }
	for len(ports.Nats) == 0 {
		time.Sleep(20 * time.Millisecond)
		for _, name := range must(filepath.Glob(folder + "/*.ports")) {
			_ = json.Unmarshal(must(os.ReadFile(name)), &ports)
		}
	}
	health = ports.Monitoring[0] + "/healthz"
	conn = must(nats.Connect(ports.Nats[0]))
	js = must(jetstream.New(conn, jetstream.WithDefaultTimeout(5*time.Second)))
}

func stream(name string) {
	must(js.CreateStream(ctx, jetstream.StreamConfig{Name: name, Subjects: []string{name}, Storage: jetstream.FileStorage}))
}

func publish(stream string, size int) string {
	if _, err := js.Publish(ctx, stream, make([]byte, size)); err != nil {
		return err.Error()
	}
	return "acknowledged"
}

func main() {
	store := must(filepath.Abs("disk/store"))
	must(0, os.WriteFile("conf", []byte(`jetstream { store_dir: "`+store+`", max_file_store: 1GB }`), 0o644))
	must(0, os.WriteFile("disk/other", make([]byte, 12<<20), 0o644))
	start()
	stream("jobs")
	acknowledged, full := 0, "acknowledged"
	for full == "acknowledged" {
		if full = publish("jobs", 100_000); full == "acknowledged" {
			acknowledged++
		}
	}
	fmt.Fprintln(os.Stderr, "  acknowledged until the disk was full:", acknowledged)
	fmt.Println("full:", full)
	must(0, os.Remove("disk/other"))
	fmt.Println("space again:", publish("jobs", 1))
	for _, question := range []string{"", "?js-server-only=true", "?js-enabled-only=true"} {
		answer := must(http.Get(health + question))
		words := must(io.ReadAll(answer.Body))
		fmt.Fprintf(os.Stderr, "  /healthz%s: %s\n", question, words)
		fmt.Printf("/healthz%s: %d\n", question, answer.StatusCode)
	}
	stream("others")
	fmt.Println("another stream:", publish("others", 100_000))

	conn.Close()
	must(0, server.Process.Signal(syscall.SIGTERM))
	_ = server.Wait()
	start()
	info := must(must(js.Stream(ctx, "jobs")).Info(ctx))
	fmt.Println("restarted: all there:", int(info.State.Msgs) == acknowledged)
	fmt.Println("restarted:", publish("jobs", 100_000))
	conn.Close()
	must(0, server.Process.Signal(syscall.SIGTERM))
	_ = server.Wait()
}
END
go mod tidy 2>/dev/null
go run . 2>&1 | tee seen
cat >expected <<'END'
full: context deadline exceeded
space again: context deadline exceeded
/healthz: 503
/healthz?js-server-only=true: 200
/healthz?js-enabled-only=true: 200
another stream: acknowledged
restarted: all there: true
restarted: acknowledged
END
diff expected <(grep -v '^  ' seen) || { echo "changed: a stream that met a full disk behaves otherwise"; exit 1; }
