package org.example;

import com.google.protobuf.ByteString;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.NameResolverRegistry;
import io.raftqueue.v1.AckRequest;
import io.raftqueue.v1.Delivery;
import io.raftqueue.v1.NewMessage;
import io.raftqueue.v1.OpenSessionRequest;
import io.raftqueue.v1.PublishRequest;
import io.raftqueue.v1.QueueGrpc;
import io.raftqueue.v1.ReceiveRequest;
import io.raftqueue.v1.SessionStep;
import java.util.concurrent.TimeUnit;

public final class Hello {
  public static void main(String[] arguments) {
    // A list of nodes is a resolver of your own (Nodes.java); with one name of DNS, or a Kubernetes service, it is `dns:///NAME:7420`.
    NameResolverRegistry.getDefaultRegistry().register(new Nodes());
    var nodes = "nodes:///" + System.getenv().getOrDefault("RAFTQ_ENDPOINTS", "127.0.0.1:7420,127.0.0.1:7430,127.0.0.1:7440");
    var channel = Grpc.newChannelBuilder(nodes, InsecureChannelCredentials.create()).build();
    var queue = QueueGrpc.newBlockingStub(channel).withDeadlineAfter(5, TimeUnit.SECONDS);
    var session = queue.openSession(OpenSessionRequest.getDefaultInstance()).getSession();
    var step = SessionStep.newBuilder().setSession(session).setSequence(1); // makes a repeat of this publish harmless
    var hello = NewMessage.newBuilder().setBody(ByteString.copyFromUtf8("hello"));
    queue.publish(PublishRequest.newBuilder().setTopic("greetings").setSession(step).addMessages(hello).build());
    var receive = ReceiveRequest.newBuilder().setTopic("greetings").setMessagesMax(10).setWaitMs(4000).build();
    for (Delivery delivery : queue.receive(receive).getDeliveriesList()) {
      System.out.println(Long.toUnsignedString(delivery.getOffset()) + " " + delivery.getBody().toStringUtf8());
      queue.ack(AckRequest.newBuilder().setTopic("greetings").addLeases(delivery.getLease()).build());
    }
    channel.shutdownNow();
  }
}
