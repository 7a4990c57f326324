"""With openapi-generator, generator `python`."""
import sys

import openapi_client as q

TOPIC = "python-generator"
api = q.ApiClient(q.Configuration(host=sys.argv[1]))
topics, messages = q.TopicsApi(api), q.MessagesApi(api)
topics.create_topic(q.CreateTopic(topic=TOPIC))
try:
    topics.create_topic(q.CreateTopic(topic=TOPIC))
    raise SystemExit("it exists")
except q.ApiException as error:
    failure = q.Failure.from_json(error.body)
    assert (failure.reason, failure.outcome) == (q.Reason.TOPIC_EXISTS, q.Outcome.NOT_DONE), error
message = q.PublishMessage(body="hello", body_crc32c=0x9A71BB4C, headers=[q.PublishHeader(name="h", value="v")])
published = messages.publish(TOPIC, q.Publish(messages=[message]), raftqueue_deadline_ms=5000)
assert published.count == 1, published
[delivery] = messages.receive(TOPIC, q.Receive(messages_max=10)).deliveries
assert delivery.deadline_ms > 2**33
assert (delivery.body, delivery.body_crc32c, delivery.headers[0].value) == ("hello", 0x9A71BB4C, "v")
leases = q.Ack(leases=[delivery.lease])
assert messages.ack(TOPIC, leases).results == [q.LeaseResult.DONE]
assert messages.ack(TOPIC, leases).results == [q.LeaseResult.GONE]
assert TOPIC in [topic.name for topic in topics.list_topics(topics_max=10).topics]
topics.delete_topic(TOPIC)
print("ok")
