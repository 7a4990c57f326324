import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { promisify } from "node:util";
import type { ProtoGrpcType } from "./gen/queue";

const nodes = process.env.RAFTQ_ENDPOINTS ?? "127.0.0.1:7420,127.0.0.1:7430,127.0.0.1:7440";
const file = loadSync("raftqueue/v1/queue.proto", { includeDirs: ["proto"], longs: String, enums: String, defaults: true });
const { Queue } = (grpc.loadPackageDefinition(file) as unknown as ProtoGrpcType).raftqueue.v1;
// One connection, to the first node that answers; when that goes, to the next one.
const timeout = { "grpc.service_config": '{"methodConfig": [{"name": [{}], "timeout": "5s"}]}' };
const queue = new Queue("ipv4:" + nodes, grpc.credentials.createInsecure(), timeout);
async function main() {
  const { session } = (await promisify(queue.OpenSession.bind(queue))({}))!;
  const step = { session, sequence: 1 }; // makes a repeat of this publish harmless
  const hello = { body: Buffer.from("hello") }; // a string would be taken for base64
  await promisify(queue.Publish.bind(queue))({ topic: "greetings", session: step, messages: [hello] });
  const received = await promisify(queue.Receive.bind(queue))({ topic: "greetings", messagesMax: 10, waitMs: 4000 });
  for (const { offset, body } of received!.deliveries) console.log(offset, body.toString()); // the offset is a string
  await promisify(queue.Ack.bind(queue))({ topic: "greetings", leases: received!.deliveries.map((one) => one.lease) });
}
main().finally(() => queue.close());
