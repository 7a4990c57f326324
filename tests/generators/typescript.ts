// With openapi-typescript and openapi-fetch.
import createClient from "openapi-fetch";
import type { paths } from "./api";
import assert from "node:assert";

const client = createClient<paths>({ baseUrl: process.argv[2] });
const topic = "typescript";

async function main() {
  const made = await client.POST("/v1/topics", { body: { topic } });
  assert.ok(made.data, JSON.stringify(made.error));
  const again = await client.POST("/v1/topics", { body: { topic } });
  const reason: "TOPIC_EXISTS" | string | undefined = again.error?.reason;
  assert.deepEqual([reason, again.error?.outcome], ["TOPIC_EXISTS", "NOT_DONE"]);
  const params = { path: { topic }, header: { "raftqueue-deadline-ms": 5000 } };
  const published = await client.POST("/v1/topics/{topic}/publish", {
    params,
    body: { messages: [{ body: "hello", body_crc32c: 0x9a71bb4c, headers: [{ name: "h", value: "v" }] }] },
  });
  assert.equal(published.data?.count, 1, JSON.stringify(published.error));
  const received = await client.POST("/v1/topics/{topic}/receive", { params, body: { messages_max: 10 } });
  const [delivery] = received.data!.deliveries;
  assert.ok(delivery.deadline_ms! > 2 ** 33);
  assert.deepEqual([delivery.body, delivery.body_crc32c, delivery.headers[0].value], ["hello", 0x9a71bb4c, "v"]);
  const body = { leases: [delivery.lease!] };
  assert.deepEqual((await client.POST("/v1/topics/{topic}/ack", { params, body })).data?.results, ["DONE"]);
  assert.deepEqual((await client.POST("/v1/topics/{topic}/ack", { params, body })).data?.results, ["GONE"]);
  const page = await client.GET("/v1/topics", { params: { query: { topics_max: 10 } } });
  assert.ok(page.data!.topics.some((one) => one.name === topic));
  assert.ok((await client.DELETE("/v1/topics/{topic}", { params: { path: { topic } } })).data);
  console.log("ok");
}

main();
