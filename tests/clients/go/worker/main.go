// A producer and a consumer to start from, with nothing but grpc-go.
//
//	worker publish TOPIC          each line of the standard input is a message, stored once, whoever leads
//	worker consume TOPIC COUNT    until so many messages are acknowledged
//
// The nodes are those of RAFTQ_ENDPOINTS. Each line that is printed is something that the queue has confirmed, or delivered.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	rq "example.org/worker/raftqueue/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"
)

const (
	leaseMs  = 5_000
	credit   = 16
	patience = time.Minute
)

// A connection to the first node that answers; when it breaks, to the next one.
func connect() (*grpc.ClientConn, error) {
	nodes, state := manual.NewBuilderWithScheme("nodes"), resolver.State{}
	for _, node := range strings.Split(os.Getenv("RAFTQ_ENDPOINTS"), ",") {
		state.Addresses = append(state.Addresses, resolver.Address{Addr: node})
	}
	nodes.InitialState(state)
	// The path is the name of the host in each call. Without one each call is reset (PROTOCOL_ERROR).
	return grpc.NewClient("nodes:///raftqueue",
		grpc.WithResolvers(nodes),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// A machine that is gone says nothing: without pings that is noticed by deadlines alone, and a stream has none.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		// While no node can be reached the library comes again after 1 s, then 1.6 s, up to 2 minutes. Not here.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 2 * time.Second,
		}))
}

// What the node says of a failure. Without that it was made on the way, and the outcome is unknown.
func detailOf(err error) *rq.ErrorDetail {
	for _, detail := range status.Convert(err).Details() {
		if detail, ok := detail.(*rq.ErrorDetail); ok {
			return detail
		}
	}
	return &rq.ErrorDetail{Outcome: rq.Outcome_OUTCOME_UNKNOWN}
}

// Says why something is tried again, and waits. A failure that no repeat mends is given back. Whether the call was done may be
// unknown, so what is repeated must bear it.
func note(err error, what string) error {
	switch status.Code(err) {
	case codes.Unavailable, codes.Unknown, codes.DeadlineExceeded, codes.ResourceExhausted:
	default:
		return err
	}
	detail := detailOf(err)
	fmt.Fprintln(os.Stderr, "again:", what, status.Code(err), detail.Outcome)
	time.Sleep(time.Duration(max(detail.GetRetryAfterMs(), 100)) * time.Millisecond)
	return nil
}

// Repeats a call until it is done.
func insist[T any](what string, call func(context.Context) (T, error)) (T, error) {
	end := time.Now().Add(patience)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		answer, err := call(ctx)
		cancel()
		if err == nil || time.Now().After(end) {
			return answer, err
		}
		if err := note(err, what); err != nil {
			return answer, err
		}
	}
}

func publish(queue rq.QueueClient, topic string) error {
	opened, err := insist("session", func(ctx context.Context) (*rq.OpenSessionResponse, error) {
		return queue.OpenSession(ctx, &rq.OpenSessionRequest{})
	})
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	for sequence := uint64(1); lines.Scan(); sequence++ {
		request := &rq.PublishRequest{
			Topic:    topic,
			Session:  &rq.SessionStep{Session: opened.Session, Sequence: sequence},
			Messages: []*rq.NewMessage{{Body: []byte(lines.Text())}},
		}
		// The same number and the same message: if the first one was stored, its offset is the answer.
		what := fmt.Sprint("publish ", sequence)
		answer, err := insist(what, func(ctx context.Context) (*rq.PublishResponse, error) {
			return queue.Publish(ctx, request)
		})
		if err != nil {
			return err
		}
		fmt.Println("published", answer.FirstOffset, lines.Text())
	}
	_, err = insist("close", func(ctx context.Context) (*rq.CloseSessionResponse, error) {
		return queue.CloseSession(ctx, &rq.CloseSessionRequest{Session: opened.Session})
	})
	return errors.Join(err, lines.Err())
}

// What was asked about one delivery.
type asked struct {
	settlement *rq.Settlement
	offset     uint64
}

// Settles what it gets. Leases outlive a stream: what was not answered is said again on the next one.
type consumer struct {
	queue        rq.QueueClient
	topic        string
	count        int
	acknowledged map[uint64]bool
	// Settlements without an answer. Answers come in their order.
	unanswered []asked
	stream     grpc.BidiStreamingClient[rq.ConsumeRequest, rq.ConsumeResponse]
}

func (c *consumer) run() error {
	for len(c.acknowledged) < c.count {
		if err := c.consume(); err != nil {
			if err := note(err, "consume"); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *consumer) consume() (err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if c.stream, err = c.queue.Consume(ctx); err != nil {
		return err
	}
	lease := uint64(leaseMs)
	c.send(&rq.ConsumeRequest{Step: &rq.ConsumeRequest_Start{Start: &rq.ConsumeStart{Topic: c.topic, LeaseMs: &lease}}})
	for _, one := range c.unanswered {
		c.send(&rq.ConsumeRequest{Step: &rq.ConsumeRequest_Settlement{Settlement: one.settlement}})
	}
	c.grant(credit)
	for {
		event, err := c.stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if len(c.acknowledged) >= c.count {
			continue
		}
		for _, delivery := range event.GetReceived().GetDeliveries() {
			c.handle(delivery)
		}
		if settled := event.GetSettled(); settled != nil {
			c.settled(settled.Results[0])
		}
		if len(c.acknowledged) >= c.count {
			// Closing this side gives back what is leased and was not begun; the other side then ends, too.
			c.stream.CloseSend()
		}
	}
}

// Send tells of a broken stream with io.EOF only; Recv tells why.
func (c *consumer) send(request *rq.ConsumeRequest) { _ = c.stream.Send(request) }

func (c *consumer) grant(messages uint64) {
	c.send(&rq.ConsumeRequest{Step: &rq.ConsumeRequest_Credit{Credit: &rq.Credit{Messages: messages}}})
}

func (c *consumer) handle(delivery *rq.Delivery) {
	body := string(delivery.Body)
	fmt.Println("received", delivery.Offset, delivery.Attempts, body)
	if strings.HasPrefix(body, "fail") && delivery.Attempts == 0 {
		c.settle(delivery, &rq.Settlement{Kind: rq.Settlement_KIND_NACK, DelayMs: 100, Reason: "not today"})
	} else {
		if strings.HasPrefix(body, "slow") {
			longer := uint64(2 * leaseMs)
			c.settle(delivery, &rq.Settlement{Kind: rq.Settlement_KIND_EXTEND, LeaseMs: &longer})
		}
		c.settle(delivery, &rq.Settlement{Kind: rq.Settlement_KIND_ACK})
	}
	c.grant(1)
}

func (c *consumer) settle(delivery *rq.Delivery, settlement *rq.Settlement) {
	settlement.Leases = [][]byte{delivery.Lease}
	c.unanswered = append(c.unanswered, asked{settlement, delivery.Offset})
	c.send(&rq.ConsumeRequest{Step: &rq.ConsumeRequest_Settlement{Settlement: settlement}})
}

func (c *consumer) settled(result rq.LeaseResult) {
	one := c.unanswered[0]
	c.unanswered = c.unanswered[1:]
	kind := strings.ToLower(strings.TrimPrefix(one.settlement.Kind.String(), "KIND_"))
	fmt.Println(kind, one.offset, strings.TrimPrefix(result.String(), "LEASE_RESULT_"))
	// GONE: an earlier acknowledgement had arrived. STALE: the lease had ended, and the message comes again.
	isDone := result == rq.LeaseResult_LEASE_RESULT_DONE || result == rq.LeaseResult_LEASE_RESULT_GONE
	if one.settlement.Kind == rq.Settlement_KIND_ACK && isDone {
		c.acknowledged[one.offset] = true
	}
}

func run(arguments []string) error {
	conn, err := connect()
	if err != nil {
		return err
	}
	defer conn.Close()
	queue := rq.NewQueueClient(conn)
	switch {
	case len(arguments) == 2 && arguments[0] == "publish":
		return publish(queue, arguments[1])
	case len(arguments) == 3 && arguments[0] == "consume":
		count, err := strconv.Atoi(arguments[2])
		if err != nil {
			return err
		}
		consumer := consumer{queue: queue, topic: arguments[1], count: count, acknowledged: map[uint64]bool{}}
		return consumer.run()
	}
	return errors.New("publish TOPIC, or consume TOPIC COUNT")
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		detail := detailOf(err)
		fmt.Fprintf(os.Stderr, "error: %v %v: %s\n", detail.Reason, detail.Outcome, status.Convert(err).Message())
		os.Exit(1)
	}
}
