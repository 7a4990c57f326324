"""With openapi-python-client."""
import sys

from raftqueue import Client
from raftqueue.api.messages import ack, publish, receive
from raftqueue.api.topics import create_topic, delete_topic, list_topics
from raftqueue.models import Ack, CreateTopic, LeaseResult, Outcome, Publish, PublishHeader, PublishMessage, Reason, Receive

TOPIC = "python-client"
client = Client(base_url=sys.argv[1])
create_topic.sync(client=client, body=CreateTopic(topic=TOPIC)).topic_id
again = create_topic.sync(client=client, body=CreateTopic(topic=TOPIC))
assert (again.reason, again.outcome) == (Reason.TOPIC_EXISTS, Outcome.NOT_DONE), again
message = PublishMessage(body="hello", body_crc32c=0x9A71BB4C, headers=[PublishHeader(name="h", value="v")])
published = publish.sync(TOPIC, client=client, body=Publish(messages=[message]), raftqueue_deadline_ms=5000)
assert published.count == 1, published
[delivery] = receive.sync(TOPIC, client=client, body=Receive(messages_max=10)).deliveries
assert delivery.deadline_ms > 2**33
assert (delivery.body, delivery.body_crc32c, delivery.headers[0].value) == ("hello", 0x9A71BB4C, "v")
leases = Ack(leases=[delivery.lease])
assert ack.sync(TOPIC, client=client, body=leases).results == [LeaseResult.DONE]
assert ack.sync(TOPIC, client=client, body=leases).results == [LeaseResult.GONE]
assert TOPIC in [topic.name for topic in list_topics.sync(client=client, topics_max=10).topics]
delete_topic.sync(TOPIC, client=client)
print("ok")
