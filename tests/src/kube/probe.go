// Command probe is the one program inside the harness's own images: it holds a pod's namespaces open, and asks from
// inside a pod what the tests want to know.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sort"
	"strings"
	"syscall"
	"time"
)

const usage = `usage:
  probe pause                     wait for SIGTERM or SIGINT
  probe resolve NAME [SERVER]     print the addresses of NAME, sorted
  probe write FILE TEXT           write a file, synced
  probe read FILE                 print a file
  probe listen ADDRESS TEXT       answer every TCP connection with TEXT
  probe dial ADDRESS              connect by TCP and print what is answered`

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	word := func(i int) string {
		if i < len(args) {
			return args[i]
		}
		return ""
	}
	switch word(0) {
	case "pause":
		return pause()
	case "resolve":
		return resolve(word(1), word(2))
	case "write":
		return write(word(1), word(2))
	case "read":
		text, err := os.ReadFile(word(1))
		os.Stdout.Write(text)
		return err
	case "listen":
		go func() { fatal(listen(word(1), word(2))) }()
		return pause()
	case "dial":
		return dial(word(1))
	}
	return fmt.Errorf("unknown command %q\n%s", word(0), usage)
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "probe:", err)
	os.Exit(1)
}

// pause also reaps what becomes its child: it is process 1 of pods that share one process namespace.
func pause() error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGCHLD)
	for received := range signals {
		if received != syscall.SIGCHLD {
			return nil
		}
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
	return nil
}

func resolve(name, server string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	resolver := &net.Resolver{PreferGo: true}
	if server != "" {
		resolver.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(server, "53"))
		}
	}
	addresses, err := resolver.LookupHost(ctx, name)
	sort.Strings(addresses)
	fmt.Println(strings.Join(addresses, " "))
	return err
}

func write(file, text string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if _, err = f.WriteString(text); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	return f.Close()
}

func listen(address, text string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		conn.Write([]byte(text))
		conn.Close()
	}
}

func dial(address string) error {
	conn, err := net.DialTimeout("tcp", address, 3*time.Second)
	if err != nil {
		return err
	}
	conn.SetReadDeadline(time.Now().Add(3 * time.Second))
	buffer := make([]byte, 4096)
	n, err := conn.Read(buffer)
	if n > 0 {
		fmt.Println(string(buffer[:n]))
		return nil
	}
	return err
}
