// Reads topics from their beginning as a plain client of npm's kafkajs, and writes keys into another by its default
// partitioner. `kafkajs.mjs BROKERS COUNT TOPIC… ` prints the messages, `kafkajs.mjs BROKERS produce TOPIC KEYS` where
// each key of a JSON array went. SASL and TLS by the environment: USERNAME, PASSWORD, MECHANISM, CA.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [brokers, what, ...given] = process.argv.slice(2);
const { Kafka, logLevel } = createRequire(`${process.cwd()}/`)("kafkajs");
const { USERNAME: username, PASSWORD: password, MECHANISM: mechanism, CA } = process.env;
process.env.KAFKAJS_NO_PARTITIONER_WARNING = "1";
const kafka = new Kafka({
  brokers: brokers.split(","),
  logLevel: logLevel.NOTHING,
  ...(username && { sasl: { mechanism, username, password } }),
  ...(CA && { ssl: { ca: [readFileSync(CA)] } }),
});
const text = (buffer) => (buffer === null || buffer === undefined ? null : buffer.toString());

async function read(count, topics) {
  const consumer = kafka.consumer({ groupId: `kafkajs-${process.pid}`, sessionTimeout: 6000 });
  const found = [];
  await consumer.connect();
  await consumer.subscribe({ topics, fromBeginning: true });
  await new Promise((done, failed) => {
    consumer.on(consumer.events.CRASH, ({ payload }) => failed(payload.error));
    consumer.run({
      eachMessage: async ({ topic, partition, message: { key, value, headers, offset, timestamp } }) => {
        const named = Object.fromEntries(Object.entries(headers).map(([name, one]) => [name, text(one)]));
        found.push({ topic, partition, offset, timestamp, key: text(key), value: text(value), headers: named });
        if (found.length === count) done();
      },
    });
  });
  await consumer.disconnect();
  return found;
}

async function write(topic, keys) {
  const producer = kafka.producer();
  await producer.connect();
  const partitions = {};
  for (const key of keys) {
    const [{ partition }] = await producer.send({ topic, messages: [{ key, value: "x" }] });
    partitions[key] = partition;
  }
  await producer.disconnect();
  return partitions;
}

try {
  const found = what === "produce" ? await write(given[0], JSON.parse(given[1])) : await read(Number(what), given);
  console.log(JSON.stringify(found));
} catch (error) {
  console.error(error.stack);
  process.exit(1);
}
