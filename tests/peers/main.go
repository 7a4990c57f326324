// Peers puts the same work on RaftQueue, NATS JetStream and RabbitMQ in turn, and prints a table of what each took. README.md says
// how to read it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

const usage = `Puts the same work on RaftQueue, NATS JetStream and RabbitMQ in turn, and prints a table: messages a second, latency, processor
time of the servers for a message, each beside RaftQueue's, and how long nothing is acknowledged after kill -9 of the leader.

Usage: go run . [OPTIONS]                    (in tests/peers; Linux, Go 1.26)

Each system is a cluster of three nodes on loopback, on files in a temporary folder that is removed at the end. One runs at a
time. nats-server is built from its Go module; RabbitMQ is Debian's package. What cannot run is told in the table.

Options:
  --systems LIST      of raftqueue, nats, nats-always, rabbitmq [default: all]
  --loads LIST        of %s [default: all]
  --rounds N          how often each system has its turn; medians are printed [default: 3]
  --seconds N         how long a load is [default: 10]
  --open-seconds N    how long a load is whose messages are due at a rate [default: 60]
  --backlog N         messages to receive [default: 300000]
  --kills N           how often each system's leader, and then all of its nodes, are killed [default: 3]
  --raftq PATH        [default: target/release/raftq; cargo build --release -p raftq makes it]
  --nats-server PATH  one that is built already
  --folder DIR        where the temporary folder goes; a disk, not memory [default: the system's]
  --install           lets apt-get install rabbitmq-server if it is missing (Debian, root); its service is not started
  --output FORMAT     table or json [default: table]

Examples:
  go run .                                                  everything, in an hour or more
  go run . --loads single --seconds 5                       one load, in three minutes
  go run . --loads kills --systems raftqueue,nats           the pause alone
  go run . --loads open-single --output json | jq .figures

The machine should have nothing else to do.
`

type options struct {
	systems, loads                               []string
	rounds, seconds, openSeconds, backlog, kills int
	raftq, nats, folder, output                  string
	install                                      bool
}

// names of all loads, with the kills.
func names() []string {
	var all []string
	for _, l := range loads {
		all = append(all, l.Name)
	}
	return append(all, kills, killsAll)
}

func parse(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("peers", flag.ContinueOnError)
	flags.SetOutput(os.Stderr)
	flags.Usage = func() { fmt.Printf(usage, strings.Join(names(), ", ")) }
	systems := flags.String("systems", strings.Join(keys, ","), "")
	chosen := flags.String("loads", strings.Join(names(), ","), "")
	flags.IntVar(&o.rounds, "rounds", 3, "")
	flags.IntVar(&o.seconds, "seconds", 10, "")
	flags.IntVar(&o.openSeconds, "open-seconds", 60, "")
	flags.IntVar(&o.backlog, "backlog", 300_000, "")
	flags.IntVar(&o.kills, "kills", 3, "")
	flags.StringVar(&o.raftq, "raftq", "../../target/release/raftq", "")
	flags.StringVar(&o.nats, "nats-server", "", "")
	flags.StringVar(&o.folder, "folder", os.TempDir(), "")
	flags.StringVar(&o.output, "output", "table", "")
	flags.BoolVar(&o.install, "install", false, "")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("%q is no option: see --help", flags.Arg(0))
	}
	for name, value := range map[string]int{"rounds": o.rounds, "seconds": o.seconds, "open-seconds": o.openSeconds,
		"backlog": o.backlog, "kills": o.kills} {
		if value < 1 {
			return o, fmt.Errorf("--%s is %d; 1 is the least", name, value)
		}
	}
	if o.output != "table" && o.output != "json" {
		return o, fmt.Errorf("--output is %q: table or json", o.output)
	}
	var err error
	if o.systems, err = listed("systems", *systems, keys); err != nil {
		return o, err
	}
	if o.loads, err = listed("loads", *chosen, names()); err != nil {
		return o, err
	}
	return o, o.paths()
}

// listed reads names separated by commas, which come back in the order of all.
func listed(option, text string, all []string) ([]string, error) {
	asked := strings.Split(text, ",")
	for _, name := range asked {
		if !slices.Contains(all, name) {
			return nil, fmt.Errorf("--%s has %q: choose from %s", option, name, strings.Join(all, ","))
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(name string) bool { return !slices.Contains(asked, name) }), nil
}

// paths are made absolute, since servers run in folders of their own.
func (o *options) paths() (err error) {
	if o.folder, err = filepath.Abs(o.folder); err != nil {
		return err
	}
	if o.nats != "" {
		if o.nats, err = exec.LookPath(o.nats); err != nil {
			return fmt.Errorf("--nats-server: %w", err)
		}
		if o.nats, err = filepath.Abs(o.nats); err != nil {
			return err
		}
	}
	if !slices.Contains(o.systems, "raftqueue") {
		return nil
	}
	if _, err = os.Stat(o.raftq); err != nil {
		return fmt.Errorf("--raftq: %w; cargo build --release -p raftq makes it", err)
	}
	o.raftq, err = filepath.Abs(o.raftq)
	return err
}

func main() {
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	r, err := compare(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		stop()
		os.Exit(1)
	}
	if o.output == "json" {
		text := json.NewEncoder(os.Stdout)
		text.SetIndent("", "  ")
		_ = text.Encode(r)
		return
	}
	fmt.Print(r.text())
}
