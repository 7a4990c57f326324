// With openapi-generator, generator `go`.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	q "example.org/raftqueue"
)

const topic = "go-generator"

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
	configuration := q.NewConfiguration()
	configuration.Servers[0].URL = os.Args[1]
	client, ctx := q.NewAPIClient(configuration), context.Background()
	_, _, err := client.TopicsAPI.CreateTopic(ctx).CreateTopic(*q.NewCreateTopic(topic)).Execute()
	must(err)
	_, _, err = client.TopicsAPI.CreateTopic(ctx).CreateTopic(*q.NewCreateTopic(topic)).Execute()
	var refused *q.GenericOpenAPIError
	check(errors.As(err, &refused), err)
	failure := refused.Model().(q.Failure)
	check(failure.Reason == q.TOPIC_EXISTS && failure.Outcome == q.NOT_DONE, failure)
	message := q.NewPublishMessage()
	message.SetBody("hello")
	message.SetBodyCrc32c(0x9a71bb4c)
	header := q.NewPublishHeader("h")
	header.SetValue("v")
	message.SetHeaders([]q.PublishHeader{*header})
	publish := q.NewPublish([]q.PublishMessage{*message})
	published, _, err := client.MessagesAPI.Publish(ctx, topic).Publish(*publish).RaftqueueDeadlineMs(5000).Execute()
	must(err)
	check(published.Count == 1, published)
	receive := q.NewReceive()
	receive.SetMessagesMax(10)
	received, _, err := client.MessagesAPI.Receive(ctx, topic).Receive(*receive).Execute()
	must(err)
	delivery := received.Deliveries[0]
	check(delivery.GetDeadlineMs() > 1<<33 && delivery.BodyCrc32c == 0x9a71bb4c, delivery)
	check(delivery.GetBody() == "hello" && delivery.Headers[0].GetValue() == "v", delivery)
	for _, wanted := range []q.LeaseResult{q.DONE, q.GONE} {
		acked, _, err := client.MessagesAPI.Ack(ctx, topic).Ack(*q.NewAck([]string{delivery.GetLease()})).Execute()
		must(err)
		check(acked.Results[0] == wanted, acked)
	}
	page, _, err := client.TopicsAPI.ListTopics(ctx).TopicsMax(10).Execute()
	must(err)
	check(len(page.Topics) > 0, page)
	_, _, err = client.TopicsAPI.DeleteTopic(ctx, topic).Execute()
	must(err)
	fmt.Println("ok")
}
