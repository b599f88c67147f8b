// Drives a running server with the real @orpc/client of protocol 2: node kit_v2.mjs VERSION BASE_URL CLI_KEY
// Prints one JSON line per check, {"check", "ok", "detail"?}, and ends with 0 however they came out.
// The server must ship the workflow "doubling" ({"number": n} to {"number": 2n}).
import assert from 'node:assert/strict'

const [version, baseUrl, key] = process.argv.slice(2)
const { createORPCClient, getEventMeta, ORPCError } = await import(`client-${version}`)
const { RPCLink } = await import(`client-${version}/fetch`)
const plugins = await import(`client-${version}/plugins`)

const asking = { authorization: `Bearer ${key}`, 'x-orpc-protocol': '2' }
const notAsking = { authorization: `Bearer ${key}` }

function connect(options = {}) {
  const sent = []
  const link = new RPCLink({
    origin: baseUrl,
    url: '/rpc',
    headers: asking,
    ...options,
    fetch: async (url, init) => {
      sent.push({ method: init.method, url: String(url) })
      return fetch(url, init)
    },
  })
  return { client: createORPCClient(link), sent }
}

async function refusal(call) {
  try {
    await call
  } catch (error) {
    assert(error instanceof ORPCError, `not an ORPCError: ${error}`)
    return error
  }
  throw new assert.AssertionError({ message: 'the call was answered' })
}

async function taken(iterator) {
  const events = []
  for await (const event of iterator) events.push(event)
  return events
}

const { client } = connect()
let runs = 0
const fresh = () => `kit2-${++runs}`

async function finishedRun() {
  const runId = fresh()
  await client.coordination.queueRun({ workflowId: 'doubling', runId, input: { number: 21 } })
  await taken(await client.coordination.watchRun({ runId }))
  return runId
}

const rich = () => ({
  at: new Date('2020-01-02T03:04:05.678Z'),
  big: 2n ** 70n,
  set: new Set([1, new Date(0), 3n]),
  map: new Map([['k', new Map([[1n, new Set(['x'])]])]]),
  url: new URL('https://example.test/a?b=c'),
  pattern: /^a\/b$/giu,
  nan: NaN,
  nothing: undefined,
  list: [undefined, null],
})
const richAsJson = {
  at: '2020-01-02T03:04:05.678Z',
  big: '1180591620717411303424',
  set: [1, '1970-01-01T00:00:00.000Z', '3'],
  map: [['k', [['1', ['x']]]]],
  url: 'https://example.test/a?b=c',
  pattern: '/^a\\/b$/giu',
  nan: null,
  list: [null, null],
}

const checks = {
  async 'a call is answered'() {
    const { workflows } = await client.coordination.listWorkflows({})
    assert(workflows.some((workflow) => workflow.workflowId === 'doubling'))
  },
  async 'a call without input is refused'() {
    assert.equal((await refusal(client.coordination.listWorkflows())).code, 'BAD_REQUEST')
  },
  async 'rich values arrive in their JSON form'() {
    const { run } = await client.coordination.queueRun({ workflowId: 'doubling', runId: fresh(), input: rich() })
    assert.deepEqual(run.input, richAsJson)
  },
  async 'rich values ask for the protocol that they are written in'() {
    const { client: plain } = connect({ headers: notAsking })
    const { run } = await plain.coordination.queueRun({ workflowId: 'doubling', runId: fresh(), input: rich() })
    assert.deepEqual(run.input, richAsJson)
    const error = await refusal(plain.coordination.getWorkflow({ workflowId: new Date(0) }))
    assert.deepEqual([error.code, error.message], ['BAD_REQUEST', 'Input validation failed'])
  },
  async 'files arrive'() {
    const input = { doc: new File(['hello'], 'nötes "1".txt', { type: 'text/plain' }), blobs: [new Blob([new Uint8Array([0, 13, 10, 255])])] }
    const { run } = await client.coordination.queueRun({ workflowId: 'doubling', runId: fresh(), input })
    assert.deepEqual(run.input.doc, { name: 'nötes "1".txt', type: 'text/plain', base64: 'aGVsbG8=' })
    assert.equal(run.input.blobs[0].base64, 'AA0K/w==')
  },
  async 'a file as the whole input is refused by the schema'() {
    const error = await refusal(client.coordination.queueRun(new File(['x'], 'x.bin')))
    assert.deepEqual([error.code, error.message], ['BAD_REQUEST', 'Input validation failed'])
  },
  async 'an error has its code, message and data'() {
    const error = await refusal(client.coordination.getWorkflow({ workflowId: 'none' }))
    assert.deepEqual(
      [error.defined, error.inferable, error.code, error.message, error.data],
      [false, false, 'WORKFLOW_NOT_FOUND', 'workflow not found', { workflowId: 'none' }],
    )
  },
  async 'refused input says where'() {
    const error = await refusal(client.coordination.getWorkflow({ workflowId: 5n, other: 1 }))
    assert.deepEqual(error.data.issues, [
      { message: 'must not have additional properties' },
      { message: 'must be string', path: ['workflowId'] },
    ])
  },
  async 'an unknown procedure is not found'() {
    assert.equal((await refusal(client.coordination.nothing({}))).code, 'NOT_FOUND')
  },
  async 'GET asks what may be asked by GET'() {
    const { client: getter, sent } = connect({ method: 'GET' })
    assert((await getter.coordination.listWorkflows({})).workflows.length > 0)
    assert.equal((await refusal(getter.coordination.queueRun({ workflowId: 'doubling' }))).code, 'METHOD_NOT_SUPPORTED')
    assert.deepEqual(sent.map(({ method }) => method), ['GET', 'GET'])
  },
  async 'a run is followed to its end'() {
    const runId = fresh()
    await client.coordination.queueRun({ workflowId: 'doubling', runId, input: { number: 21 } })
    const events = await taken(await client.coordination.watchRun({ runId }))
    assert.deepEqual(events.map((event) => getEventMeta(event).id), events.map(({ seq }) => String(seq)))
    assert.equal(events.at(-1).type, 'run.completed')
  },
  async 'a stream goes on after the last event id'() {
    const runId = await finishedRun()
    const events = await taken(await client.coordination.watchRun({ runId }, { lastEventId: '2' }))
    assert.equal(events[0].seq, 3)
  },
  async 'a stream that cannot be opened is an error'() {
    assert.equal((await refusal(client.coordination.watchRun({ runId: 'none' }))).code, 'RUN_NOT_FOUND')
  },
  async 'a stream may be left'() {
    const iterator = await client.coordination.watchRun({ runId: await finishedRun() })
    await iterator.next()
    await iterator.return()
  },
  async 'calls are batched, buffered'() {
    await batched('buffered', 'POST')
  },
  async 'calls are batched, streaming'() {
    await batched('streaming', 'POST')
  },
  async 'calls by GET are batched'() {
    await batched('streaming', 'GET')
  },
  async 'a batch asks for the protocol by itself'() {
    await batched('streaming', 'POST', notAsking)
  },
  async 'more than ten calls are split'() {
    const { client: batching, sent } = connect({ plugins: [batch('buffered')] })
    const answers = await Promise.all(Array.from({ length: 12 }, () => batching.state.getRuntimeState({})))
    assert.equal(answers.length, 12)
    assert.equal(sent.length, 2)
  },
}

function batch(mode) {
  return new plugins.BatchLinkPlugin({ mode, groups: [{ condition: () => true, context: {} }] })
}

async function batched(mode, method, headers = asking) {
  const { client: batching, sent } = connect({ method, headers, plugins: [batch(mode)] })
  const [list, state, missing, unknown] = await Promise.allSettled([
    batching.coordination.listWorkflows({}),
    batching.state.getRuntimeState({}),
    batching.coordination.getWorkflow({ workflowId: 'none' }),
    batching.coordination.nothing({}),
  ])
  assert(list.value?.workflows.length > 0, String(list.reason?.stack))
  assert(Array.isArray(state.value.state.plugins.enabled))
  assert.equal(missing.reason.code, 'WORKFLOW_NOT_FOUND')
  assert.equal(unknown.reason.code, 'NOT_FOUND')
  assert.equal(sent.length, 1)
  assert(sent[0].url.includes('/__batch__'))
}

for (const [check, run] of Object.entries(checks)) {
  try {
    await run()
    console.log(JSON.stringify({ check, ok: true }))
  } catch (error) {
    console.log(JSON.stringify({ check, ok: false, detail: String(error.stack ?? error) }))
  }
}
