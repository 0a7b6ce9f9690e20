// Every call of @upstash/kafka's consumer and admin, against the API at argv[2]; prints what came of each as JSON.
import { createRequire } from "node:module";

const [url, username, password, posts, users] = process.argv.slice(2);
const { Kafka } = createRequire(`${process.cwd()}/`)("@upstash/kafka");
const kafka = new Kafka({ url, username, password });
const consumer = kafka.consumer();
const admin = kafka.admin();

// The client waits for 15 s in all before it tells an error; a test has no reason to.
const wait = globalThis.setTimeout;
globalThis.setTimeout = (callback, ms, ...rest) => wait(callback, Math.min(ms, 10), ...rest);

const found = {};
found.topics = await admin.topics();
const places = [posts, users].flatMap((topic) =>
  Array.from({ length: found.topics[topic] }, (_, partition) => ({ topic, partition })),
);
const earliest = await admin.topicPartitionOffsets({ timestamp: "earliest", topicPartitions: places });
found.earliest = earliest;
found.latest = await admin.topicPartitionOffsets({ timestamp: "latest", topicPartition: places[0] });
found.since = await admin.topicPartitionOffsets({ timestamp: 0, topicPartition: places[0] });
found.fetched = await consumer.fetch({ topicPartitionOffsets: earliest, timeout: 500 });
const [{ topic, partition, offset }] = found.fetched;
found.one = await consumer.fetch({ topic, partition, offset, timeout: 500 });

const asked = { consumerGroupId: "upstash", instanceId: "one", topics: [posts, users], timeout: 2000 };
found.consumed = await consumer.consume({
  ...asked, autoCommit: true, autoCommitInterval: 1, autoOffsetReset: "earliest",
});
found.empty = await consumer.consume({ ...asked, timeout: 0 });
const both = { consumerGroupId: "upstash", instanceId: "one" };
found.committed = await consumer.committed({ ...both, topicPartitions: places });
found.committedOffsets = await admin.committedOffsets({ ...both, topicPartition: places[0] });

const manual = { ...asked, consumerGroupId: "manual", topics: [posts], autoCommit: false, autoOffsetReset: "earliest" };
const messages = await consumer.consume(manual);
const last = messages[messages.length - 1];
const done = { topic: last.topic, partition: last.partition, offset: last.offset + 1 };
found.commit = await consumer.commit({ consumerGroupId: "manual", instanceId: "one", offset: done });
found.commitAll = await consumer.commit({ consumerGroupId: "manual", instanceId: "one" });
found.done = await consumer.committed({
  consumerGroupId: "manual", instanceId: "one", topicPartitions: [{ topic: done.topic, partition: done.partition }],
});
found.consumers = await admin.consumers();
await admin.removeConsumerInstance("manual", "one");
found.left = await admin.consumers();

for (const [name, call] of Object.entries({
  produce: () => kafka.producer().produce(posts, "x"),
  unknown: () => consumer.fetch({ topic: "nothing", partition: 0, offset: 0 }),
  wrong: () => new Kafka({ url, username, password: "wrong" }).admin().topics(),
})) {
  found[name] = await call().catch((error) => ({ name: error.name, error: error.error, status: error.status }));
}
console.log(JSON.stringify(found));
