// What a user would write over the client that a stock generator made of our document: node use.js BASE_URL API_KEY
// The types are the check as much as the calls are. The server must ship the workflow "doubling".
import createClient from 'openapi-fetch'
import type { paths } from './api.js'

declare const process: { argv: string[] }

const [baseUrl, key] = process.argv.slice(2)
const client = createClient<paths>({ baseUrl: `${baseUrl}/api/orpc`, headers: { authorization: `Bearer ${key}` } })

const list = await client.GET('/coordination/workflows')
const ids: string[] = list.data!.workflows.map((workflow) => workflow.workflowId)

const path = { workflowId: 'doubling' }
const valid = await client.POST('/coordination/workflows/{workflowId}/validate', { params: { path } })
const ok: boolean = valid.data!.validation.ok

const queued = await client.POST('/coordination/workflows/{workflowId}/run', {
  params: { path },
  body: { runId: 'generated', input: { number: 21 } },
})
const status: 'queued' | 'running' | 'completed' | 'failed' = queued.data!.run.status

const missing = await client.GET('/coordination/runs/{runId}', { params: { path: { runId: 'none' } } })
const code: string = missing.error!.code

console.log(JSON.stringify({ doubling: ids.includes('doubling'), ok, known: status.length > 0, code }))
