// With ogen.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	q "example.org/ogen/api"
)

const topic = "go-ogen"

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func check(ok bool, what any) {
	if !ok {
		panic(fmt.Sprintf("%+v", what))
	}
}

func main() {
	client, err := q.NewClient(os.Args[1])
	must(err)
	ctx := context.Background()
	_, err = client.CreateTopic(ctx, &q.CreateTopic{Topic: topic}, q.CreateTopicParams{})
	must(err)
	_, err = client.CreateTopic(ctx, &q.CreateTopic{Topic: topic}, q.CreateTopicParams{})
	var refused *q.FailureStatusCode
	check(errors.As(err, &refused), err)
	check(refused.Response.Reason == q.ReasonTOPICEXISTS && refused.Response.Outcome == q.OutcomeNOTDONE, refused)
	message := q.PublishMessage{
		Body: q.NewOptString("hello"), BodyCrc32c: q.NewOptInt64(0x9a71bb4c),
		Headers: []q.PublishHeader{{Name: "h", Value: q.NewOptString("v")}},
	}
	params := q.PublishParams{Topic: topic, RaftqueueDeadlineMs: q.NewOptInt64(5000)}
	published, err := client.Publish(ctx, &q.Publish{Messages: []q.PublishMessage{message}}, params)
	must(err)
	check(published.Count == 1, published)
	receive := &q.Receive{MessagesMax: q.NewOptInt64(10)}
	received, err := client.Receive(ctx, receive, q.ReceiveParams{Topic: topic})
	must(err)
	delivery := received.Deliveries[0]
	check(delivery.DeadlineMs.Value > 1<<33 && delivery.BodyCrc32c == 0x9a71bb4c, delivery)
	check(delivery.Body.Value == "hello" && delivery.Headers[0].Value.Value == "v", delivery)
	for _, wanted := range []q.LeaseResult{q.LeaseResultDONE, q.LeaseResultGONE} {
		acked, err := client.Ack(ctx, &q.Ack{Leases: []string{delivery.Lease.Value}}, q.AckParams{Topic: topic})
		must(err)
		check(acked.Results[0] == wanted, acked)
	}
	page, err := client.ListTopics(ctx, q.ListTopicsParams{TopicsMax: q.NewOptInt64(10)})
	must(err)
	check(len(page.Topics) > 0, page)
	err = client.DeleteTopic(ctx, q.DeleteTopicParams{Topic: topic})
	must(err)
	fmt.Println("ok")
}
