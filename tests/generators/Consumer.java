// With openapi-generator, generator `java`, library `native`.
import java.util.List;
import org.openapitools.client.ApiClient;
import org.openapitools.client.ApiException;
import org.openapitools.client.JSON;
import org.openapitools.client.api.MessagesApi;
import org.openapitools.client.api.TopicsApi;
import org.openapitools.client.model.*;

public class Consumer {
    static final String TOPIC = "java";

    static void check(boolean ok, Object what) {
        if (!ok) throw new AssertionError(what);
    }

    public static void main(String[] arguments) throws Exception {
        ApiClient client = new ApiClient();
        client.updateBaseUri(arguments[0]);
        TopicsApi topics = new TopicsApi(client);
        MessagesApi messages = new MessagesApi(client);
        topics.createTopic(new CreateTopic().topic(TOPIC), null);
        try {
            topics.createTopic(new CreateTopic().topic(TOPIC), null);
            throw new AssertionError("it exists");
        } catch (ApiException refused) {
            Failure failure = client.getObjectMapper().readValue(refused.getResponseBody(), Failure.class);
            check(failure.getReason() == Reason.TOPIC_EXISTS && failure.getOutcome() == Outcome.NOT_DONE, failure);
        }
        PublishHeader header = new PublishHeader().name("h").value("v");
        PublishMessage message = new PublishMessage().body("hello").bodyCrc32c(0x9a71bb4cL).addHeadersItem(header);
        Published published = messages.publish(TOPIC, new Publish().addMessagesItem(message), 5000L);
        check(published.getCount() == 1, published);
        Delivery delivery = messages.receive(TOPIC, new Receive().messagesMax(10L), null).getDeliveries().get(0);
        check(delivery.getDeadlineMs() > 1L << 33 && delivery.getBodyCrc32c() == 0x9a71bb4cL, delivery);
        check(delivery.getBody().equals("hello") && delivery.getHeaders().get(0).getValue().equals("v"), delivery);
        Ack ack = new Ack().addLeasesItem(delivery.getLease());
        check(messages.ack(TOPIC, ack, null).getResults().equals(List.of(LeaseResult.DONE)), "acknowledged");
        check(messages.ack(TOPIC, ack, null).getResults().equals(List.of(LeaseResult.GONE)), "once only");
        check(topics.listTopics(null, 10L, null).getTopics().size() > 0, "topics");
        topics.deleteTopic(TOPIC, null);
        System.out.println("ok");
    }
}
