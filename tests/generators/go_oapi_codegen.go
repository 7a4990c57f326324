// With oapi-codegen, its types and client in api.go beside this file.
package main

import (
	"context"
	"fmt"
	"os"
)

const topic = "go-oapi-codegen"

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

func at[T any](value T) *T { return &value }

func main() {
	client, err := NewClientWithResponses(os.Args[1])
	must(err)
	ctx := context.Background()
	made, err := client.CreateTopicWithResponse(ctx, nil, CreateTopic{Topic: topic})
	must(err)
	check(made.JSON200 != nil, string(made.Body))
	again, err := client.CreateTopicWithResponse(ctx, nil, CreateTopic{Topic: topic})
	must(err)
	check(again.JSONDefault.Reason == TOPICEXISTS && again.JSONDefault.Outcome == NOTDONE, string(again.Body))
	message := PublishMessage{
		Body: at("hello"), BodyCrc32c: at(int64(0x9a71bb4c)), Headers: &[]PublishHeader{{Name: "h", Value: at("v")}},
	}
	params := &PublishParams{RaftqueueDeadlineMs: at(int64(5000))}
	published, err := client.PublishWithResponse(ctx, topic, params, Publish{Messages: []PublishMessage{message}})
	must(err)
	check(published.JSON200 != nil && published.JSON200.Count == 1, string(published.Body))
	received, err := client.ReceiveWithResponse(ctx, topic, nil, Receive{MessagesMax: at(int64(10))})
	must(err)
	delivery := received.JSON200.Deliveries[0]
	check(*delivery.DeadlineMs > 1<<33 && delivery.BodyCrc32c == 0x9a71bb4c, delivery)
	check(*delivery.Body == "hello" && *delivery.Headers[0].Value == "v", delivery)
	for _, wanted := range []LeaseResult{DONE, GONE} {
		acked, err := client.AckWithResponse(ctx, topic, nil, Ack{Leases: []string{*delivery.Lease}})
		must(err)
		check(acked.JSON200.Results[0] == wanted, string(acked.Body))
	}
	page, err := client.ListTopicsWithResponse(ctx, &ListTopicsParams{TopicsMax: at(int64(10))})
	must(err)
	check(len(page.JSON200.Topics) > 0, string(page.Body))
	deleted, err := client.DeleteTopicWithResponse(ctx, topic, nil)
	must(err)
	check(deleted.JSON200 != nil, string(deleted.Body))
	fmt.Println("ok")
}
