package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"syscall"
	"time"
)

// Where the callers of the pause publish.
const ourQueue = "pause"

// An ourCaller publishes through the JSON API, in a session, at one node until that fails.
type ourCaller struct {
	r       *raftqueue
	client  *http.Client
	node    int
	session string
	// The session counts on over all messages of this caller.
	sequence, number int
}

// post calls the JSON API of a node.
func (r *raftqueue) post(ctx context.Context, client *http.Client, node int, path string, body, answer any) error {
	content, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+r.endpoint(node)+path, bytes.NewReader(content))
	if err != nil {
		return err
	}
	request.Header.Set("content-type", "application/json")
	request.Header.Set("raftqueue-deadline-ms", fmt.Sprint(callPatience.Milliseconds()))
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	said, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("%s: %s", response.Status, said)
	}
	return json.Unmarshal(said, answer)
}

func ourClient() *http.Client {
	return &http.Client{Transport: &http.Transport{}, Timeout: callPatience + 200*time.Millisecond}
}

func (r *raftqueue) prepare(ctx context.Context) error {
	var made any
	return r.post(ctx, ourClient(), 0, "/v1/topics", map[string]string{"topic": ourQueue}, &made)
}

func (r *raftqueue) caller(ctx context.Context, number int) (caller, error) {
	c := &ourCaller{r: r, client: ourClient(), node: number % 3}
	var opened struct{ Session string }
	err := r.post(ctx, c.client, c.node, "/v1/sessions", map[string]string{}, &opened)
	c.session = opened.Session
	return c, err
}

func (c *ourCaller) try(ctx context.Context, number int, body []byte) error {
	if number != c.number {
		c.number = number
		c.sequence++
	}
	publish := map[string]any{
		"session":  map[string]any{"session": c.session, "sequence": c.sequence},
		"messages": []map[string]string{{"body": string(body)}},
	}
	var stored any
	return c.r.post(ctx, c.client, c.node, "/v1/topics/"+ourQueue+"/publish", publish, &stored)
}

func (c *ourCaller) failed(error) { c.node = (c.node + 1) % 3 }

func (c *ourCaller) close() { c.client.CloseIdleConnections() }

func (r *raftqueue) kill(node int) error { return syscall.Kill(r.pid(node), syscall.SIGKILL) }

// revive leaves it to `raftq up`, which starts a node that died two seconds later.
func (r *raftqueue) revive(int) error { return nil }

func (r *raftqueue) healthy(ctx context.Context) error {
	client := ourClient()
	return until(ctx, "all nodes being ready", func() error {
		for node := range 3 {
			// Ready is who has applied all that was committed when it started.
			response, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/readyz", r.base+10*node+2))
			if err != nil {
				return err
			}
			_ = response.Body.Close()
			if response.StatusCode != http.StatusOK {
				return fmt.Errorf("node-%d: %s", node, response.Status)
			}
		}
		return nil
	})
}

func (r *raftqueue) readAll(ctx context.Context) (map[string]int, error) {
	client, found := ourClient(), map[string]int{}
	for {
		var got struct {
			Deliveries []struct{ Body, Lease string }
		}
		receive := map[string]int{"messages_max": 1_000}
		if err := r.post(ctx, client, 0, "/v1/topics/"+ourQueue+"/receive", receive, &got); err != nil {
			return nil, err
		}
		if len(got.Deliveries) == 0 {
			return found, nil
		}
		var leases []string
		for _, delivery := range got.Deliveries {
			found[contentOf([]byte(delivery.Body))]++
			leases = append(leases, delivery.Lease)
		}
		var acknowledged any
		ack := map[string][]string{"leases": leases}
		if err := r.post(ctx, client, 0, "/v1/topics/"+ourQueue+"/ack", ack, &acknowledged); err != nil {
			return nil, err
		}
	}
}
