package org.example;

import com.google.protobuf.Any;
import com.google.protobuf.ByteString;
import com.google.protobuf.InvalidProtocolBufferException;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.NameResolverRegistry;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.StreamObserver;
import io.raftqueue.v1.CloseSessionRequest;
import io.raftqueue.v1.ConsumeRequest;
import io.raftqueue.v1.ConsumeResponse;
import io.raftqueue.v1.ConsumeStart;
import io.raftqueue.v1.Credit;
import io.raftqueue.v1.Delivery;
import io.raftqueue.v1.ErrorDetail;
import io.raftqueue.v1.LeaseResult;
import io.raftqueue.v1.NewMessage;
import io.raftqueue.v1.OpenSessionRequest;
import io.raftqueue.v1.Outcome;
import io.raftqueue.v1.PublishRequest;
import io.raftqueue.v1.QueueGrpc;
import io.raftqueue.v1.SessionStep;
import io.raftqueue.v1.Settlement;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayDeque;
import java.util.HashSet;
import java.util.Queue;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;

/**
 * A producer and a consumer to start from, with nothing but grpc-java.
 *
 * <pre>
 * Worker publish TOPIC          each line of the standard input is a message, stored once, whoever leads
 * Worker consume TOPIC COUNT    until so many messages are acknowledged
 * </pre>
 *
 * The nodes are those of RAFTQ_ENDPOINTS. Each line that is printed is something that the queue has confirmed, or delivered.
 */
public final class Worker {
  private static final String NODES =
      System.getenv().getOrDefault("RAFTQ_ENDPOINTS", "127.0.0.1:7420,127.0.0.1:7430,127.0.0.1:7440");
  private static final long LEASE_MS = 5_000;
  private static final long CREDIT = 16;
  private static final long PATIENCE_MS = 60_000;

  private final ManagedChannel channel;

  private Worker(ManagedChannel channel) {
    this.channel = channel;
  }

  public static void main(String[] arguments) throws Exception {
    NameResolverRegistry.getDefaultRegistry().register(new Nodes());
    ManagedChannel channel =
        Grpc.newChannelBuilder("nodes:///" + NODES, InsecureChannelCredentials.create())
            // A machine that is gone says nothing: without pings that is noticed by deadlines alone, and a stream has none.
            .keepAliveTime(10, TimeUnit.SECONDS)
            .keepAliveTimeout(5, TimeUnit.SECONDS)
            // Without it a node that hangs, and still accepts connections, holds up the next one for ever.
            .keepAliveWithoutCalls(true)
            .build();
    try {
      Worker worker = new Worker(channel);
      if (arguments[0].equals("publish")) {
        worker.publish(arguments[1]);
      } else {
        worker.new Consumer(arguments[1], Integer.parseInt(arguments[2])).run();
      }
    } catch (StatusRuntimeException error) {
      ErrorDetail detail = detailOf(error);
      String text = error.getStatus().getDescription();
      System.err.println("error: " + detail.getReason() + " " + detail.getOutcome() + ": " + text);
      System.exit(1);
    } finally {
      channel.shutdownNow();
    }
  }

  /** What the node says of a failure. Without that it was made on the way, and the outcome is unknown. */
  private static ErrorDetail detailOf(StatusRuntimeException error) {
    com.google.rpc.Status status = StatusProto.fromThrowable(error);
    for (Any any : status.getDetailsList()) {
      if (any.is(ErrorDetail.class)) {
        try {
          return any.unpack(ErrorDetail.class);
        } catch (InvalidProtocolBufferException unreadable) {
          break;
        }
      }
    }
    return ErrorDetail.newBuilder().setOutcome(Outcome.OUTCOME_UNKNOWN).build();
  }

  /**
   * Says why something is tried again, and waits. A failure that no repeat mends is thrown. Whether the call was done may be
   * unknown, so what is repeated must bear it.
   */
  private void note(StatusRuntimeException error, String what) throws InterruptedException {
    Status.Code code = error.getStatus().getCode();
    switch (code) {
      case UNAVAILABLE, UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED -> {}
      default -> throw error;
    }
    ErrorDetail detail = detailOf(error);
    System.err.println("again: " + what + " " + code + " " + detail.getOutcome());
    Thread.sleep(Math.max(detail.getRetryAfterMs(), 100));
    // While no node can be reached the library comes again after 1 s, then 1.6 s, up to 2 minutes. Not here.
    channel.resetConnectBackoff();
  }

  /** Repeats a call until it is done. */
  private <A> A insist(String what, Function<QueueGrpc.QueueBlockingStub, A> call) throws InterruptedException {
    long end = System.currentTimeMillis() + PATIENCE_MS;
    while (true) {
      try {
        return call.apply(QueueGrpc.newBlockingStub(channel).withDeadlineAfter(2, TimeUnit.SECONDS));
      } catch (StatusRuntimeException error) {
        if (System.currentTimeMillis() > end) {
          throw error;
        }
        note(error, what);
      }
    }
  }

  private void publish(String topic) throws IOException, InterruptedException {
    ByteString session =
        insist("session", queue -> queue.openSession(OpenSessionRequest.getDefaultInstance())).getSession();
    var lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    long sequence = 0;
    for (String line = lines.readLine(); line != null; line = lines.readLine()) {
      sequence += 1;
      PublishRequest request =
          PublishRequest.newBuilder()
              .setTopic(topic)
              .setSession(SessionStep.newBuilder().setSession(session).setSequence(sequence))
              .addMessages(NewMessage.newBuilder().setBody(ByteString.copyFromUtf8(line)))
              .build();
      // The same number and the same message: if the first one was stored, its offset is the answer.
      long offset = insist("publish " + sequence, queue -> queue.publish(request)).getFirstOffset();
      System.out.println("published " + Long.toUnsignedString(offset) + " " + line);
    }
    insist("close", queue -> queue.closeSession(CloseSessionRequest.newBuilder().setSession(session).build()));
  }

  /** What was asked about one delivery. */
  private record Asked(Settlement settlement, long offset) {}

  /** Settles what it gets. Leases outlive a stream: what was not answered is said again on the next one. */
  private final class Consumer {
    private final String topic;
    private final int count;
    private final Set<Long> acknowledged = new HashSet<>();

    /** Settlements without an answer. Answers come in their order. */
    private final Queue<Asked> unanswered = new ArrayDeque<>();

    private StreamObserver<ConsumeRequest> stream;

    Consumer(String topic, int count) {
      this.topic = topic;
      this.count = count;
    }

    void run() throws InterruptedException {
      while (acknowledged.size() < count) {
        try {
          consume();
        } catch (StatusRuntimeException error) {
          note(error, "consume");
        }
      }
    }

    private void consume() {
      var ended = new CompletableFuture<Void>();
      begin(ended);
      try {
        ended.join();
      } catch (CompletionException error) {
        throw (StatusRuntimeException) error.getCause();
      }
    }

    /** Answers come on another thread, and may come before all of this is said. */
    private synchronized void begin(CompletableFuture<Void> ended) {
      stream =
          QueueGrpc.newStub(channel)
              .consume(
                  new StreamObserver<>() {
                    @Override
                    public void onNext(ConsumeResponse event) {
                      told(event);
                    }

                    @Override
                    public void onError(Throwable error) {
                      ended.completeExceptionally(error);
                    }

                    @Override
                    public void onCompleted() {
                      ended.complete(null);
                    }
                  });
      send(ConsumeRequest.newBuilder().setStart(ConsumeStart.newBuilder().setTopic(topic).setLeaseMs(LEASE_MS)));
      unanswered.forEach(one -> send(ConsumeRequest.newBuilder().setSettlement(one.settlement)));
      grant(CREDIT);
    }

    private synchronized void told(ConsumeResponse event) {
      if (acknowledged.size() >= count) {
        return;
      }
      event.getReceived().getDeliveriesList().forEach(this::handle);
      if (event.hasSettled()) {
        settled(event.getSettled().getResults(0));
      }
      if (acknowledged.size() >= count) {
        // Closing this side gives back what is leased and was not begun; the other side then ends, too.
        stream.onCompleted();
      }
    }

    private void send(ConsumeRequest.Builder request) {
      stream.onNext(request.build());
    }

    private void grant(long messages) {
      send(ConsumeRequest.newBuilder().setCredit(Credit.newBuilder().setMessages(messages)));
    }

    private void handle(Delivery delivery) {
      String body = delivery.getBody().toStringUtf8();
      String offset = Long.toUnsignedString(delivery.getOffset());
      System.out.println("received " + offset + " " + delivery.getAttempts() + " " + body);
      if (body.startsWith("fail") && delivery.getAttempts() == 0) {
        settle(delivery, Settlement.newBuilder().setKind(Settlement.Kind.KIND_NACK).setDelayMs(100).setReason("not today"));
      } else {
        if (body.startsWith("slow")) {
          settle(delivery, Settlement.newBuilder().setKind(Settlement.Kind.KIND_EXTEND).setLeaseMs(2 * LEASE_MS));
        }
        settle(delivery, Settlement.newBuilder().setKind(Settlement.Kind.KIND_ACK));
      }
      grant(1);
    }

    private void settle(Delivery delivery, Settlement.Builder how) {
      Settlement settlement = how.addLeases(delivery.getLease()).build();
      unanswered.add(new Asked(settlement, delivery.getOffset()));
      send(ConsumeRequest.newBuilder().setSettlement(settlement));
    }

    private void settled(LeaseResult result) {
      Asked one = unanswered.remove();
      String kind = one.settlement.getKind().name().replace("KIND_", "").toLowerCase();
      String offset = Long.toUnsignedString(one.offset);
      System.out.println(kind + " " + offset + " " + result.name().replace("LEASE_RESULT_", ""));
      // GONE: an earlier acknowledgement had arrived. STALE: the lease had ended, and the message comes again.
      boolean isDone = result == LeaseResult.LEASE_RESULT_DONE || result == LeaseResult.LEASE_RESULT_GONE;
      if (one.settlement.getKind() == Settlement.Kind.KIND_ACK && isDone) {
        acknowledged.add(one.offset);
      }
    }
  }
}
