// A producer and a consumer to start from, with nothing but grpc-js and its loader.
//
//   worker publish TOPIC          each line of the standard input is a message, stored once, whoever leads
//   worker consume TOPIC COUNT    until so many messages are acknowledged
//
// The nodes are those of RAFTQ_ENDPOINTS. Each line that is printed is something that the queue has confirmed, or delivered.

import * as grpc from "@grpc/grpc-js";
import { loadSync, type MessageTypeDefinition } from "@grpc/proto-loader";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import type { ProtoGrpcType } from "./gen/queue";
import type { ConsumeRequest } from "./gen/raftqueue/v1/ConsumeRequest";
import type { ConsumeResponse__Output } from "./gen/raftqueue/v1/ConsumeResponse";
import type { Delivery__Output } from "./gen/raftqueue/v1/Delivery";
import type { ErrorDetail__Output } from "./gen/raftqueue/v1/ErrorDetail";
import type { QueueClient } from "./gen/raftqueue/v1/Queue";
import type { Settlement } from "./gen/raftqueue/v1/Settlement";

const NODES = process.env.RAFTQ_ENDPOINTS ?? "127.0.0.1:7420,127.0.0.1:7430,127.0.0.1:7440";
const OPTIONS = {
  // A machine that is gone says nothing: without pings that is noticed by deadlines alone, and a stream has none.
  "grpc.keepalive_time_ms": 10_000,
  "grpc.keepalive_timeout_ms": 5_000,
  // While no node can be reached the library comes again after 1 s, then 1.6 s, up to 2 minutes. Not here.
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.max_reconnect_backoff_ms": 1_000,
};
const LEASE_MS = 5_000;
const CREDIT = 16;
const PATIENCE_MS = 60_000;
// Numbers of 64 bits are strings: a number of JavaScript is exact up to 2^53 only.
const FILES = loadSync(["raftqueue/v1/queue.proto", "status.proto"], {
  includeDirs: ["proto", "."],
  longs: String,
  enums: String,
  defaults: true,
  oneofs: true,
});
const { Queue } = (grpc.loadPackageDefinition(FILES) as unknown as ProtoGrpcType).raftqueue.v1;

type Detail = Pick<ErrorDetail__Output, "reason" | "outcome" | "retryAfterMs">;

function read<A>(type: string, bytes: Buffer): A {
  return (FILES[type] as MessageTypeDefinition<object, object>).deserialize(bytes) as A;
}

// What the node says of a failure. Without that it was made on the way, and the outcome is unknown.
function detailOf(error: grpc.ServiceError): Detail {
  const [bytes] = error.metadata?.get("grpc-status-details-bin") ?? [];
  if (bytes instanceof Buffer) {
    const status = read<{ details: { type_url: string; value: Buffer }[] }>("google.rpc.Status", bytes);
    const any = status.details.find((one) => one.type_url.endsWith("/raftqueue.v1.ErrorDetail"));
    if (any) return read<ErrorDetail__Output>("raftqueue.v1.ErrorDetail", any.value);
  }
  return { reason: "REASON_UNSPECIFIED", outcome: "OUTCOME_UNKNOWN" };
}

// Of these a repeat may help. Whether the call was done may be unknown, so what is repeated must bear it.
const { UNAVAILABLE, UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED } = grpc.status;
const REPEATED = [UNAVAILABLE, UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED];

// Says why something is tried again, and waits. A failure that no repeat mends is thrown.
async function note(error: grpc.ServiceError, what: string) {
  if (!REPEATED.includes(error.code)) throw error;
  const detail = detailOf(error);
  console.error("again:", what, grpc.status[error.code], detail.outcome);
  await sleep(Math.max(Number(detail.retryAfterMs ?? 0), 100));
}

interface Method<Q, A> {
  (request: Q, options: grpc.CallOptions, done: grpc.requestCallback<A>): grpc.ClientUnaryCall;
  (request: Q, done: grpc.requestCallback<A>): grpc.ClientUnaryCall;
}

// Repeats a call until it is done.
async function insist<Q, A>(queue: QueueClient, what: string, method: Method<Q, A>, request: Q): Promise<A> {
  const call = method.bind(queue) as Method<Q, A>;
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    try {
      return await new Promise<A>((done, failed) =>
        call(request, { deadline: Date.now() + 2_000 }, (error, answer) => (error ? failed(error) : done(answer!))),
      );
    } catch (error) {
      if (Date.now() > end) throw error;
      await note(error as grpc.ServiceError, what);
    }
  }
}

async function publish(queue: QueueClient, topic: string) {
  const { session } = await insist(queue, "session", queue.OpenSession, {});
  let sequence = 0;
  for await (const line of createInterface({ input: process.stdin })) {
    sequence += 1;
    // Bytes, and no string: that would be taken for base64.
    const request = { topic, session: { session, sequence }, messages: [{ body: Buffer.from(line) }] };
    // The same number and the same message: if the first one was stored, its offset is the answer.
    const answer = await insist(queue, `publish ${sequence}`, queue.Publish, request);
    console.log("published", answer.firstOffset, line);
  }
  await insist(queue, "close", queue.CloseSession, { session });
}

// Settles what it gets. Leases outlive a stream: what was not answered is said again on the next one.
class Consumer {
  private acknowledged = new Set<string>();
  // Settlements without an answer, with what they are about. Answers come in their order.
  private unanswered: { settlement: Settlement; offset: string }[] = [];
  private stream!: grpc.ClientDuplexStream<ConsumeRequest, ConsumeResponse__Output>;

  constructor(
    private queue: QueueClient,
    private topic: string,
    private count: number,
  ) {}

  async run() {
    while (this.acknowledged.size < this.count) {
      try {
        await this.consume();
      } catch (error) {
        await note(error as grpc.ServiceError, "consume");
      }
    }
  }

  private consume(): Promise<void> {
    return new Promise((done, failed) => {
      this.stream = this.queue.Consume();
      this.stream.on("data", (event: ConsumeResponse__Output) => this.told(event));
      this.stream.on("error", failed);
      this.stream.on("end", done);
      this.stream.write({ start: { topic: this.topic, leaseMs: LEASE_MS } });
      for (const { settlement } of this.unanswered) this.stream.write({ settlement });
      this.stream.write({ credit: { messages: CREDIT } });
    });
  }

  private told(event: ConsumeResponse__Output) {
    if (this.acknowledged.size >= this.count) return;
    for (const delivery of event.received?.deliveries ?? []) this.handle(delivery);
    if (event.settled) this.settled(event.settled.results[0]);
    // Closing this side gives back what is leased and was not begun; the other side then ends, too.
    if (this.acknowledged.size >= this.count) this.stream.end();
  }

  private handle(delivery: Delivery__Output) {
    const body = delivery.body.toString();
    console.log("received", delivery.offset, delivery.attempts, body);
    if (body.startsWith("fail") && delivery.attempts === 0) {
      this.settle(delivery, { kind: "KIND_NACK", delayMs: 100, reason: "not today" });
    } else {
      if (body.startsWith("slow")) this.settle(delivery, { kind: "KIND_EXTEND", leaseMs: 2 * LEASE_MS });
      this.settle(delivery, { kind: "KIND_ACK" });
    }
    this.stream.write({ credit: { messages: 1 } });
  }

  private settle({ lease, offset }: Delivery__Output, how: Settlement) {
    const settlement = { ...how, leases: [lease] };
    this.unanswered.push({ settlement, offset });
    this.stream.write({ settlement });
  }

  private settled(result: string) {
    const { settlement, offset } = this.unanswered.shift()!;
    const kind = String(settlement.kind).replace("KIND_", "").toLowerCase();
    console.log(kind, offset, result.replace("LEASE_RESULT_", ""));
    // GONE: an earlier acknowledgement had arrived. STALE: the lease had ended, and the message comes again.
    const isDone = result === "LEASE_RESULT_DONE" || result === "LEASE_RESULT_GONE";
    if (kind === "ack" && isDone) this.acknowledged.add(offset);
  }
}

async function main([command, topic, count]: string[]) {
  const queue = new Queue("ipv4:" + NODES, grpc.credentials.createInsecure(), OPTIONS);
  try {
    if (command === "publish") await publish(queue, topic);
    else await new Consumer(queue, topic, Number(count)).run();
  } catch (error) {
    const { reason, outcome } = detailOf(error as grpc.ServiceError);
    console.error(`error: ${reason} ${outcome}: ${(error as grpc.ServiceError).details}`);
    process.exitCode = 1;
  } finally {
    queue.close();
  }
}

main(process.argv.slice(2));
