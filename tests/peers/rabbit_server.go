package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	// Where Debian puts the programs. The ones in /usr/sbin would run as another user, in that one's folders.
	rabbitBin = "/usr/lib/rabbitmq/bin/"
	// A policy that lets no package start a service.
	policy     = "/usr/sbin/policy-rc.d"
	policyText = "#!/bin/sh\nexit 101\n"
)

// A rabbit is three nodes of RabbitMQ with quorum queues, and an epmd of their own.
type rabbit struct {
	install bool
	folder  string
	epmd    *process
	nodes   []*process
	env     [][]string
	urls    []string
	queues  int
	queue   string
}

func (r *rabbit) key() string  { return "rabbitmq" }
func (r *rabbit) name() string { return "RabbitMQ" }

func (r *rabbit) version() string {
	said, err := exec.Command("dpkg-query", "-W", "-f", "${Package} ${Version}", "rabbitmq-server").Output()
	if err != nil {
		return "unknown: the package rabbitmq-server is not there"
	}
	return string(said) + ", amqp091-go " + moduleVersion("github.com/rabbitmq/amqp091-go")
}

func (r *rabbit) settings() string {
	return "quorum queues of 3, its defaults: fsync on a majority before each confirm; publisher confirms; clients connected to the " +
		"queue's leader; it has no batches; receive has a prefetch of 256 and acknowledges 64 at once, not confirmed to the client"
}

// found looks for the programs, and has apt install them where that is wanted.
func (r *rabbit) found(ctx context.Context) error {
	if _, err := os.Stat(rabbitBin + "rabbitmq-server"); err == nil {
		return nil
	}
	if !r.install {
		return errors.New("rabbitmq-server is not installed: --install lets apt-get do it (Debian, as root)")
	}
	return installRabbit(ctx)
}

// installRabbit has apt install the package, and lets it start no service, neither now nor at the next boot.
func installRabbit(ctx context.Context) error {
	if os.Getuid() != 0 {
		return errors.New("rabbitmq-server is not installed, and --install takes root")
	}
	if _, err := os.Stat(policy); errors.Is(err, os.ErrNotExist) {
		if err := os.WriteFile(policy, []byte(policyText), 0o755); err != nil {
			return err
		}
		defer os.Remove(policy)
	}
	run := func(args ...string) error {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if said, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, said)
		}
		return nil
	}
	if err := run("apt-get", "update", "-qq"); err != nil {
		return err
	}
	if err := run("apt-get", "install", "-y", "-qq", "--no-install-recommends", "rabbitmq-server"); err != nil {
		return err
	}
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		return run("systemctl", "disable", "--now", "rabbitmq-server")
	}
	return nil
}

func (r *rabbit) start(ctx context.Context, folder string) error {
	if err := r.found(ctx); err != nil {
		return err
	}
	r.folder, r.env, r.urls, r.nodes = folder, nil, nil, make([]*process, 3)
	ports, err := freePorts(7)
	if err != nil {
		return err
	}
	epmd := fmt.Sprint(ports[6])
	if r.epmd, err = launch(filepath.Join(folder, "epmd.log"), nil, "epmd", "-port", epmd, "-address", "127.0.0.1"); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, ".erlang.cookie"), []byte("peers"), 0o400); err != nil {
		return err
	}
	config := "listeners.tcp.local = 127.0.0.1:%d\ncluster_formation.peer_discovery_backend = classic_config\n"
	for i := range 3 {
		config += fmt.Sprintf("cluster_formation.classic_config.nodes.%d = %s\n", i+1, rabbitName(i))
	}
	for i := range 3 {
		path := filepath.Join(folder, fmt.Sprintf("rabbit-%d.conf", i))
		if err := os.WriteFile(path, fmt.Appendf(nil, config, ports[i]), 0o644); err != nil {
			return err
		}
		r.env = append(r.env, []string{
			"HOME=" + folder, "ERL_EPMD_PORT=" + epmd, "ERL_EPMD_ADDRESS=127.0.0.1",
			"RABBITMQ_NODENAME=" + rabbitName(i), "RABBITMQ_CONFIG_FILE=" + path, fmt.Sprintf("RABBITMQ_DIST_PORT=%d", ports[3+i]),
			"RABBITMQ_MNESIA_BASE=" + filepath.Join(folder, "mnesia"), "RABBITMQ_LOG_BASE=" + filepath.Join(folder, "log"),
			"RABBITMQ_ENABLED_PLUGINS_FILE=" + filepath.Join(folder, "plugins"), "RABBITMQ_CONF_ENV_FILE=/dev/null",
			`RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}`,
			// Neither they nor the tools start an epmd that would outlive them.
			"RABBITMQ_CTL_ERL_ARGS=-start_epmd false",
			// Then the script becomes the server, and has its process id.
			"RUNNING_UNDER_SYSTEMD=true",
		})
		r.urls = append(r.urls, fmt.Sprintf("amqp://guest:guest@127.0.0.1:%d/", ports[i]))
		if err := r.revive(i); err != nil {
			return err
		}
	}
	return until(ctx, "forming a cluster", func() error {
		said, err := r.ctl(ctx, "rabbitmqctl", "cluster_status", "--formatter", "json")
		if err != nil {
			return err
		}
		var status struct {
			Running []string `json:"running_nodes"`
		}
		if err := json.Unmarshal(said, &status); err != nil {
			return err
		}
		if len(status.Running) != 3 {
			return fmt.Errorf("running: %v", status.Running)
		}
		for i := range 3 {
			conn, err := amqp.Dial(r.urls[i])
			if err != nil {
				return err
			}
			_ = conn.Close()
		}
		return nil
	})
}

func rabbitName(node int) string { return fmt.Sprintf("peer%d@localhost", node) }

func (r *rabbit) revive(node int) (err error) {
	log := filepath.Join(r.folder, fmt.Sprintf("rabbit-%d.log", node))
	r.nodes[node], err = launch(log, r.env[node], rabbitBin+"rabbitmq-server")
	return err
}

func (r *rabbit) stop() {
	stopAll(r.nodes)
	stopAll([]*process{r.epmd})
}

func (r *rabbit) pids() []int {
	var pids []int
	for _, node := range r.nodes {
		pids = append(pids, node.pid())
	}
	return pids
}

// ctl asks a node that runs with one of the tools.
func (r *rabbit) ctl(ctx context.Context, tool string, args ...string) ([]byte, error) {
	for i, node := range r.nodes {
		if node == nil || !node.runs() {
			continue
		}
		return output(ctx, r.env[i], rabbitBin+tool, append([]string{"--quiet", "-n", rabbitName(i)}, args...)...)
	}
	return nil, errors.New("no node runs: see rabbit-*.log")
}

// A rabbitQueue is what the tools say of one.
type rabbitQueue struct {
	Name    string   `json:"name"`
	Leader  string   `json:"leader"`
	Online  []string `json:"online"`
	Members []string `json:"members"`
}

func (r *rabbit) look(ctx context.Context, queue string) (rabbitQueue, error) {
	said, err := r.ctl(ctx, "rabbitmqctl", "list_queues", "--formatter", "json", "name", "leader", "online", "members")
	if err != nil {
		return rabbitQueue{}, err
	}
	var queues []rabbitQueue
	if err := json.Unmarshal(said, &queues); err != nil {
		return rabbitQueue{}, err
	}
	for _, q := range queues {
		if q.Name == queue {
			return q, nil
		}
	}
	return rabbitQueue{}, fmt.Errorf("there is no queue %s", queue)
}

// leaderOf is the number of the node that leads a queue.
func (r *rabbit) leaderOf(ctx context.Context, queue string) (int, error) {
	q, err := r.look(ctx, queue)
	if err != nil {
		return 0, err
	}
	for i := range 3 {
		if q.Leader == rabbitName(i) {
			return i, nil
		}
	}
	return 0, fmt.Errorf("%s has no leader", queue)
}
