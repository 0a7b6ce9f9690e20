// Calls of @trigger.dev/sdk against the API at argv[2]; prints what came of each as JSON, by its name.
import { createRequire } from "node:module";

const [url, accessToken] = process.argv.slice(2);
const sdk = createRequire(`${process.cwd()}/`)("@trigger.dev/sdk/v3");
const { TriggerClient, auth, batch, configure, deployments, envvars, idempotencyKeys, queues, runs, schedules, tasks, wait } = sdk;
configure({ baseURL: url, accessToken, requestOptions: { retry: { maxAttempts: 1 } } });

const found = {};
async function call(name, make) {
  let timer;
  const late = new Promise((_, refuse) => {
    timer = setTimeout(() => refuse(new Error(`${name} takes too long`)), 30_000);
  });
  try {
    found[name] = { value: await Promise.race([make(), late]) };
  } catch (error) {
    const cause = error.cause?.status ? error.cause : error;
    found[name] = { name: error.name, status: cause.status ?? null, message: String(cause.message) };
  }
  clearTimeout(timer);
  return found[name].value;
}
const ended = (handle) => runs.poll(handle, { pollIntervalMs: 100 });

const at = new Date("2026-01-31T12:00:00.500Z");
const payload = { at, big: 9007199254740992n, tags: new Set(["a"]), of: new Map([["x", 1]]), no: undefined, deep: [{ at }] };
const echoed = await call("tasks.trigger", () => tasks.trigger("echo-payload", payload));
await call("runs.poll", async () => await ended(echoed));
await call("runs.retrieve", () => runs.retrieve(echoed.id));
await call("a text", async () => ended(await tasks.trigger("echo-payload", "text")));
const failed = await call("a task that fails", () => tasks.trigger("fail-always", { a: 1 }));
await call("its error", () => ended(failed));

const options = {
  delay: "1h", ttl: "10m", queue: "slow", concurrencyKey: "c", idempotencyKey: "once", idempotencyKeyTTL: "1d",
  tags: ["one", "two"], metadata: { by: "ann" }, priority: 5, maxAttempts: 7,
};
const delayed = await call("every option", () => tasks.trigger("echo-payload", { n: 1 }, options));
await call("the same key", () => tasks.trigger("echo-payload", { n: 1 }, options));
await call("the delayed run", () => runs.retrieve(delayed.id));
await call("runs.reschedule", () => runs.reschedule(delayed.id, { delay: "2h" }));
await call("runs.cancel", () => runs.cancel(delayed.id));
await call("the canceled run", () => runs.retrieve(delayed.id));
await call("runs.cancel again", () => runs.cancel(delayed.id));
await call("runs.replay", async () => ended(await runs.replay(echoed.id)));
const changed = { payload: { at, n: 2n }, tags: ["again"], metadata: { by: "bob" }, maxAttempts: 2 };
await call("a replay of another payload", async () => ended(await runs.replay(echoed.id, changed)));
await call("a replay elsewhere", () => runs.replay(echoed.id, { machine: "micro" }));
for (const mode of ["trailing", "leading", undefined]) {
  const debounce = { key: `d ${mode}`, delay: "1h", mode, maxDelay: "2h" };
  const one = await call(`debounced ${mode}`, () => tasks.trigger("echo-payload", { n: 1 }, { debounce }));
  await call(`debounced ${mode} again`, () => tasks.trigger("echo-payload", { n: 2 }, { debounce }));
  await call(`the debounced ${mode}`, () => runs.retrieve(one.id));
}

const key = await idempotencyKeys.create("of a failure", { scope: "global" });
const once = await call("a key", () => tasks.trigger("fail-always", 1, { idempotencyKey: key }));
await call("a key whose run failed", async () => ended(once));
await call("the key again", () => tasks.trigger("fail-always", 1, { idempotencyKey: key }));
const kept = await call("another key", () => tasks.trigger("echo-payload", 1, { idempotencyKey: key, delay: "1h" }));
await call("idempotencyKeys.reset", () => idempotencyKeys.reset("echo-payload", key));
await call("idempotencyKeys.reset of none", () => idempotencyKeys.reset("echo-payload", key));
await call("another key again", () => tasks.trigger("echo-payload", 1, { idempotencyKey: key, delay: "1h" }));

const large = { at, text: `\0${"\u00e9".repeat(199_999)}` };
const whole = await call("a large payload", async () => ended(await tasks.trigger("echo-payload", large)));
if (whole) found["a large payload"].value = { payload: whole.payload.text === large.text, output: whole.output };
if (whole) whole.output.text = whole.output.text.length;
await call("a large text", async () => (await ended(await tasks.trigger("echo-payload", large.text))).output.length);
await call("large items", async () => {
  const { batchId } = await tasks.batchTrigger("echo-payload", [{ payload: large }, { payload: 1 }, { payload: large }]);
  const { runs: ids } = await batch.retrieve(batchId);
  return await Promise.all(ids.map(async (id) => (await ended(id)).output?.text?.length ?? null));
});

const odd = {
  "a.b": { "c\\": 1n, "d\\.e": at }, [""]: [undefined, null, , -0], re: /x+/gi, error: new TypeError("no"),
  bytes: new Uint8Array([1, 2]), url: new URL("http://a/b?c"), set: new Set([new Map([["k", new Set([at])]])]),
  keyed: new Map([[1, 2n]]), twice: [large.at, large.at], same: [{ n: 1 }], emoji: "\u{1f600}", zero: "a\0b",
};
odd.again = odd.same;
await call("odd values", async () => (await ended(await tasks.trigger("echo-payload", odd))).output);
const circular = { name: "x" };
circular.self = circular;
const never = { NaN, Infinity: -Infinity, circular, surrogate: "a\ud800", huge: 2n ** 70n, deep: null };
for (let n = 0; n < 300; n++) never.deep = [never.deep];
for (const [name, value] of Object.entries(never)) {
  await call(`a payload with ${name}`, () => tasks.trigger("echo-payload", { value }));
}

const items = [{ payload: { n: 1 } }, { payload: { n: 2 }, options: { tags: ["second"] } }];
const batched = await call("tasks.batchTrigger", () => tasks.batchTrigger("echo-payload", items));
await call("batch.retrieve", () => batch.retrieve(batched.batchId));
await call("batch.trigger", () => batch.trigger([{ id: "echo-payload", payload: 1 }, { id: "fail-always", payload: 2 }]));
const keyed = { idempotencyKey: "a batch" };
await call("a batch with a key", () => tasks.batchTrigger("echo-payload", items, keyed));
await call("the same batch", () => tasks.batchTrigger("echo-payload", items, keyed));

const page = async (list) => { const one = await list; return { data: one.data, more: one.hasNextPage() }; };
await call("runs.list", () => page(runs.list({ taskIdentifier: "echo-payload", limit: 2 })));
await call("runs.list of all", async () => {
  const ids = [];
  for await (const run of runs.list({ limit: 2 })) ids.push(run.id);
  return ids;
});
await call("runs.list by status", () => page(runs.list({ status: ["FAILED", "CANCELED"], period: "1d" })));
await call("runs.list by tag", () => page(runs.list({ tag: "second", from: new Date(0), to: new Date(Date.now() + 60_000) })));

await call("runs.list by batch", () => page(runs.list({ batch: batched.batchId, isTest: false, limit: 1 })));
await call("runs.list of an unknown batch", () => page(runs.list({ batch: "batch_x" })));
await call("runs.list of tests", () => page(runs.list({ isTest: true })));

await call("queues.list", () => page(queues.list({ perPage: 10 })));
await call("queues.pause", () => queues.pause("queue_slow"));
await call("queues.pause again", () => queues.pause({ type: "custom", name: "slow" }));
await call("queues.resume", () => queues.resume("queue_slow"));
await call("queues.resume again", () => queues.resume("queue_slow"));
await call("queues.retrieve", () => queues.retrieve({ type: "task", name: "echo-payload" }));
await call("queues.overrideConcurrencyLimit", () => queues.overrideConcurrencyLimit("queue_slow", 3));
await call("queues.resetConcurrencyLimit", () => queues.resetConcurrencyLimit("queue_slow"));

await call("schedules.list", () => page(schedules.list()));
await call("schedules.deactivate", () => schedules.deactivate("tick-hourly"));
await call("schedules.retrieve", () => schedules.retrieve("tick-hourly"));
await call("schedules.activate", () => schedules.activate("tick-hourly"));
await call("schedules.timezones", async () => (await schedules.timezones()).timezones.length > 100);
const clock = { task: "take-tick", cron: "0 3 * * *", timezone: "America/New_York", externalId: "ann", deduplicationKey: "k" };
const made = await call("schedules.create", () => schedules.create(clock));
await call("the same schedule", () => schedules.create({ ...clock, cron: "0 4 * * *" }));
await call("schedules.update", () => schedules.update(made.id, { task: "take-tick", cron: "0 5 * * *", externalId: "bob" }));
await call("schedules.del", () => schedules.del(made.id));
await call("a schedule of code", () => schedules.update("tick-hourly", { task: "tick-hourly", cron: "0 5 * * *" }));
await call("a schedule of a task that takes more", () => schedules.create({ ...clock, task: "take-order" }));

async function* three() {
  for (let n = 0; n < 3; n++) yield { payload: { n, at }, options: { tags: "of a stream" } };
}
const streamed = await call("a batch of a stream", () => tasks.batchTrigger("echo-payload", three()));
await call("by its objects", () => batch.triggerByTask([{ task: { id: "echo-payload" }, payload: 1 }]));
await call("the stream's runs", async () => {
  const found = [];
  for await (const run of runs.list({ tag: "of a stream", batch: streamed.batchId, status: ["QUEUED", "EXECUTING", "COMPLETED"], limit: 2 })) found.push(run.tags);
  return found;
});
await call("an empty batch", () => tasks.batchTrigger("echo-payload", []));
await call("too large a batch", () => tasks.batchTrigger("echo-payload", Array.from({ length: 1001 }, () => ({ payload: 1 }))));
await call("a batch with a bad item", () => tasks.batchTrigger("take-order", [{ payload: { number: 1 } }, { payload: {} }]));
await call("two values of a filter", () => page(runs.list({ tag: ["one", "two"] })));
const client = new TriggerClient({ baseURL: url, accessToken, requestOptions: { retry: { maxAttempts: 1 } } });
await call("another client", async () => {
  const handle = await client.tasks.trigger("take-order", { number: 7 });
  return await client.runs.poll(handle.id, { pollIntervalMs: 100 });
});
for (let n = 0; n < 5; n++) await schedules.create({ ...clock, deduplicationKey: `many ${n}` });
const every = async (list) => {
  const found = [];
  for await (const one of list) found.push(one.id);
  return found;
};
await call("every schedule", () => every(schedules.list({ perPage: 2 })));
await call("every queue", () => every(queues.list({ perPage: 1 })));
await call("a schedule by its key", () => schedules.retrieve("many 3"));
await call("environment variables", () => envvars.list("proj_x", "dev"));
await call("deployments of it", () => page(deployments.list()));
await call("bulk", () => runs.bulk.cancel({ runIds: [echoed.id] }));

await call("an unknown task", () => tasks.trigger("ecko-payload", 1));
await call("a wrong payload", () => tasks.trigger("take-order", { number: "x" }));
await call("an unknown run", () => runs.retrieve("run_00000000000000000000000000"));
for (const [name, value] of Object.entries({ machine: "large-1x", maxDuration: 60, region: "eu", version: "1" })) {
  await call(`option ${name}`, () => tasks.trigger("echo-payload", 1, { [name]: value }));
}
const first = async (subscription) => {
  for await (const run of subscription) return run;
};
await call("runs.subscribeToRun", () => first(runs.subscribeToRun(echoed.id)));
await call("runs.subscribeToRunsWithTag", () => first(runs.subscribeToRunsWithTag("one")));
await call("runs.subscribeToBatch", () => first(runs.subscribeToBatch(batched.batchId)));
await call("runs.fetchStream", async () => first(await runs.fetchStream(echoed.id, "s")));
await call("wait.createToken", () => wait.createToken({ timeout: "1h" }));
await call("wait.listTokens", () => page(wait.listTokens()));
await call("auth.createPublicToken", () => auth.createPublicToken({ scopes: { read: { runs: [echoed.id] } } }));
await call("a public token", () => auth.withAuth({ accessToken: echoed.publicAccessToken }, () => runs.retrieve(echoed.id)));
await call("a wrong key", () => auth.withAuth({ accessToken: "tr_dev_wrong" }, () => runs.retrieve(echoed.id)));

console.log(JSON.stringify(found, (_, value) => (typeof value === "bigint" ? `${value}n` : value)));
process.exit(0);
