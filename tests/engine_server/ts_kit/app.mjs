// `node app.mjs VERSION PORT`: an app as a user would write it. `GET /entered` tells how often each step was entered.
import { createServer } from "node:http";

const [version, port] = process.argv.slice(2);
const { Inngest } = await import(`inngest-${version}`);
const { serve } = await import(`inngest-${version}/node`);

const app = `ts${version}`;
const client = new Inngest({ id: app });
const make = (options, trigger, handler) =>
  version === "3"
    ? client.createFunction(options, trigger, handler)
    : client.createFunction({ ...options, triggers: [trigger] }, handler);

const entered = {};
const enter = (runId, step) => {
  entered[`${runId} ${step}`] = (entered[`${runId} ${step}`] ?? 0) + 1;
};

const helper = make({ id: "helper" }, { event: `${app}/helper` }, ({ event }) => ({ helped: event.data.who }));

const all = make({ id: "all", retries: 3 }, { event: `${app}/all` }, async ({ event, step, group, runId }) => {
  const one = await step.run("one", () => (enter(runId, "one"), { n: event.data.n }));
  await step.sleep("nap", "1s");
  const pair = await Promise.all([
    step.run("a", () => (enter(runId, "a"), "a")),
    step.run("b", async () => (enter(runId, "b"), "b")),
    step.sleep("c", "1s"),
  ]);
  const added = await step.run("add", (x, y) => x + y, 1, 2);
  const helped = await step.invoke("help", { function: helper, data: { who: app } });
  await step.sendEvent("tell", { name: `${app}/told`, data: { n: event.data.n } });
  const heard = await step.waitForEvent("hear", {
    event: `${app}/answer`,
    timeout: "5m",
    if: "async.data.n == event.data.n",
  });
  const race = () => Promise.race([step.run("fast", () => "fast"), step.sleep("slow", "4s").then(() => "slow")]);
  const winner = version === "3" ? await race() : await group.parallel({ mode: "race" }, race);
  let caught = null;
  try {
    await step.run("bad", () => {
      enter(runId, "bad");
      throw new Error("no");
    });
  } catch (error) {
    caught = error.message;
  }
  return { n: one.n, pair: pair.slice(0, 2), added, helped, heard: heard?.data.word ?? null, winner, caught };
});

const doomed = make(
  {
    id: "doomed",
    retries: 0,
    onFailure: ({ event }) => enter(event.data.run_id, "mourned"),
    concurrency: 3,
    idempotency: "event.data.n",
  },
  { event: `${app}/doomed` },
  () => {
    throw new Error("it cannot be");
  },
);

const large = make({ id: "large" }, { event: `${app}/large` }, async ({ step }) => {
  let size = 0;
  for (let index = 0; index < 6; index += 1) {
    size += (await step.run(`big${index}`, () => "x".repeat(1_000_000))).length;
  }
  return size;
});

const streaming = process.env.KIT_STREAMING === "1" ? (version === "3" ? "force" : true) : false;
const handler = serve({ client, functions: [helper, all, doomed, large], streaming });
createServer((request, response) => {
  if (request.url === "/entered") {
    response.end(JSON.stringify(entered));
    return;
  }
  handler(request, response);
}).listen(Number(port), "127.0.0.1");
