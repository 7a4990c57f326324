package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A natsCluster is three nats-servers with JetStream.
type natsCluster struct {
	// sync is whether every write is synced; else the server's default, every two minutes.
	sync    bool
	program string
	// Of each server.
	configs []string
	urls    []string
	servers []*process
	logs    string
	queues  int
	control jetstream.JetStream
	conn    *nats.Conn
	// queue that the pause is measured on.
	queue string
}

func (n *natsCluster) key() string {
	if n.sync {
		return "nats-always"
	}
	return "nats"
}

func (n *natsCluster) name() string {
	if n.sync {
		return "NATS, sync always"
	}
	return "NATS, default"
}

func (n *natsCluster) version() string {
	said, err := exec.Command(n.program, "--version").Output()
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(said)) + ", nats.go " + nats.Version
}

func (n *natsCluster) settings() string {
	sync := "syncs its files every 2 minutes (the default), so acknowledged before a sync"
	if n.sync {
		sync = "sync_interval: always"
	}
	return sync + "; file streams with 3 replicas and work queue retention; clients connected to the stream's leader; batches are " +
		"atomic batch publishes, 4 callers x 500, the first message waited for (jetstreamext's default); streamed is PublishAsync; " +
		"receive is Fetch of 256 by each caller, explicit acks, not confirmed to the client (no DoubleAck), up to 10,000 pending"
}

// buildNats makes the nats-server that go.mod names.
func buildNats(ctx context.Context, folder string) (string, error) {
	program := filepath.Join(folder, "nats-server")
	said, err := exec.CommandContext(ctx, "go", "build", "-o", program, "github.com/nats-io/nats-server/v2").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build of nats-server (from tests/peers, or give --nats-server): %w: %s", err, said)
	}
	return program, nil
}

func (n *natsCluster) start(ctx context.Context, folder string) error {
	ports, err := freePorts(6)
	if err != nil {
		return err
	}
	sync := ""
	if n.sync {
		sync = ", sync_interval: always"
	}
	n.logs = folder
	n.configs, n.urls, n.servers = nil, nil, make([]*process, 3)
	for i := range 3 {
		config := fmt.Sprintf(`server_name: n%d
listen: "127.0.0.1:%d"
jetstream { store_dir: %q%s }
cluster { name: peers, listen: "127.0.0.1:%d", routes: ["nats://127.0.0.1:%d", "nats://127.0.0.1:%d", "nats://127.0.0.1:%d"] }
`, i, ports[i], filepath.Join(folder, fmt.Sprint("n", i)), sync, ports[3+i], ports[3], ports[4], ports[5])
		path := filepath.Join(folder, fmt.Sprintf("n%d.conf", i))
		if err := os.WriteFile(path, []byte(config), 0o644); err != nil {
			return err
		}
		n.configs = append(n.configs, path)
		n.urls = append(n.urls, fmt.Sprintf("nats://127.0.0.1:%d", ports[i]))
		if err := n.revive(i); err != nil {
			return err
		}
	}
	err = until(ctx, "connecting", func() (err error) {
		n.conn, err = nats.Connect(strings.Join(n.urls, ","), nats.MaxReconnects(-1))
		return err
	})
	if err != nil {
		return err
	}
	if n.control, err = jetstream.New(n.conn); err != nil {
		return err
	}
	return until(ctx, "electing JetStream's leader", func() error {
		if err := n.stream(ctx, "first"); err != nil {
			return err
		}
		return n.control.DeleteStream(ctx, "first")
	})
}

func (n *natsCluster) revive(node int) (err error) {
	log := filepath.Join(n.logs, fmt.Sprintf("n%d.log", node))
	n.servers[node], err = launch(log, nil, n.program, "-c", n.configs[node])
	return err
}

func (n *natsCluster) stop() {
	if n.conn != nil {
		n.conn.Close()
	}
	stopAll(n.servers)
}

func (n *natsCluster) pids() []int {
	var pids []int
	for _, server := range n.servers {
		pids = append(pids, server.pid())
	}
	return pids
}

// stream makes a stream of that name, on the subject of that name.
func (n *natsCluster) stream(ctx context.Context, name string) error {
	_, err := n.control.CreateStream(ctx, jetstream.StreamConfig{
		Name: name, Subjects: []string{name}, Storage: jetstream.FileStorage, Replicas: 3,
		Retention: jetstream.WorkQueuePolicy, AllowAtomicPublish: true,
	})
	return err
}

// leaderOf is the number of the server that leads a stream.
func (n *natsCluster) leaderOf(ctx context.Context, name string) (int, error) {
	stream, err := n.control.Stream(ctx, name)
	if err != nil {
		return 0, err
	}
	cluster := stream.CachedInfo().Cluster
	var node int
	if cluster == nil || cluster.Leader == "" {
		return 0, errors.New("the stream has no leader")
	}
	_, err = fmt.Sscanf(cluster.Leader, "n%d", &node)
	return node, err
}
