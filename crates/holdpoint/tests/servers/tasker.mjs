// An MCP server with tasks, in the era that its argument names: `legacy` (2025-11-25, `params.task`)
// or `modern` (2026-07-28, extension `io.modelcontextprotocol/tasks`); `http` is the latter by HTTP,
// on a port that it prints; `plain` the same without declaring the extension. Tools:
//   work    {need?}          a task, if the client can follow one; else -32021 (modern). It may need
//                            `input`, be `stubborn` (it ignores its cancellation), `short` (of life), `long` (of
//                            name) or `curious` (it never has asked enough)
//   rude    {}               a task, whatever the client can follow
//   finish  {task, how?}     ends a task of this server: `completed`, `error` (isError) or `failed`
//   seen    {}               tells what the client said it can do, and the `tasks/…` it was sent
//   poke    {}               asks the client for a task and about one, and tells what came back (legacy)
// A task ends when it is told to, never by itself.
import { createServer } from "node:http";
import { createInterface } from "node:readline";

const mode = process.argv[2] ?? "modern";
const era = mode === "legacy" ? "legacy" : "modern";
// Two servers give the same ids.
let last = 0;
let write = (message) => process.stdout.write(JSON.stringify({ jsonrpc: "2.0", ...message }) + "\n");
const info = { name: "tasker", version: "1" };
const extension = "io.modelcontextprotocol/tasks";
const capabilities = era === "legacy"
  ? { tools: {}, tasks: { list: {}, cancel: {}, requests: { tools: { call: {} } } } }
  : { tools: {}, extensions: { ...(mode === "plain" ? {} : { [extension]: {} }), "com.example/other": {} } };
const tool = (name) => ({
  name, description: name, inputSchema: { type: "object" },
  ...(era === "legacy" ? { execution: { taskSupport: "optional" } } : {}),
});
const tools = ["work", "rude", "finish", "seen", "poke"].map(tool);
const seen = { client: null, heard: [] };
const tasks = new Map();
const waiting = new Map();
const text = (said) => ({ content: [{ type: "text", text: JSON.stringify(said) }] });

const question = (message) => ({
  method: "elicitation/create",
  params: { message, requestedSchema: { type: "object", properties: {} } },
});
let asked = 0;
const questions = (need) => need === "curious"
  ? Object.fromEntries(Array.from({ length: 60 }, () => [`q-${++asked}`, question("And?")]))
  : { user: question("Go on?") };
const shown = ({ need, replies, ...task }) => ({
  ...task,
  ...(task.status === "input_required" ? { inputRequests: questions(need) } : {}),
});
function begin(need) {
  const now = new Date().toISOString();
  const name = need === "long" ? "x".repeat(513) : `task-${++last}`;
  const task = {
    taskId: name, status: ["input", "curious"].includes(need) ? "input_required" : "working",
    createdAt: now, lastUpdatedAt: now, ttlMs: need === "short" ? 50 : 3600000, pollIntervalMs: 10,
    need,
  };
  tasks.set(task.taskId, task);
  const { inputRequests, ...seed } = shown(task);
  return JSON.parse(JSON.stringify(seed));
}
function finish({ task: id, how = "completed" }) {
  const task = tasks.get(id);
  if (how === "failed") Object.assign(task, { status: "failed", error: { code: -32603, message: "broke" } });
  else {
    const result = { ...text({ done: id, replies: task.replies }), resultType: "complete" };
    Object.assign(task, { status: "completed", result: { ...result, isError: how === "error" } });
  }
  return text("finished");
}
const ask = (method, params) =>
  new Promise((found) => {
    waiting.set(++last, found);
    write({ id: last, method, params });
  });

async function poke(id) {
  const said = [];
  for (const method of ["tasks/get", "tasks/list"]) said.push(await ask(method, { taskId: "x" }));
  write({ method: "notifications/tasks/status", params: { taskId: "x", status: "working" } });
  said.push(await ask("sampling/createMessage", { maxTokens: 5, messages: [], task: { ttl: 1000 } }));
  write({ id, result: text(said) });
}
function call(id, params, complete) {
  const able = params._meta?.["io.modelcontextprotocol/clientCapabilities"];
  if (era === "modern") seen.client = able;
  const follows = era === "legacy" ? params.task !== undefined : able?.extensions?.[extension] !== undefined;
  const given = () => {
    const task = begin(params.arguments?.need);
    return write({ id, result: era === "legacy" ? { task } : { resultType: "task", ...task } });
  };
  switch (params.name) {
    case "rude": return given();
    case "work":
      if (follows) return given();
      if (era === "legacy") return complete(text("worked"));
      return write({ id, error: { code: -32021, message: "Missing required client capability",
        data: { requiredCapabilities: { extensions: { [extension]: {} } } } } });
    case "finish": return complete(finish(params.arguments));
    case "poke": return void poke(id);
    default: return complete(text(seen));
  }
}
function follow(id, method, params, complete) {
  seen.heard.push(method);
  const task = tasks.get(params.taskId);
  if (task === undefined) return write({ id, error: { code: -32602, message: "Task not found" } });
  if (method === "tasks/get") return complete(shown(task));
  const over = ["completed", "failed"].includes(task.status) || task.need === "stubborn";
  if (method === "tasks/cancel" && !over) task.status = "cancelled";
  if (method === "tasks/update") {
    task.replies = params.inputResponses;
    task.status = "working";
  }
  complete({});
}

function handle(line) {
  const { id, method, params, result, error } = JSON.parse(line);
  if (method === undefined) {
    waiting.get(id)?.({ result, error: error && { code: error.code, reason: error.data?.reason } });
    waiting.delete(id);
    return;
  }
  if (id === undefined) return;
  const meta = { "io.modelcontextprotocol/serverInfo": info };
  const complete = (said) =>
    write({ id, result: era === "legacy" ? said : { resultType: "complete", ...said, _meta: meta } });
  const kept = era === "legacy" ? {} : { ttlMs: 0, cacheScope: "private" };
  if (era === "legacy" && method === "initialize") {
    seen.client = params.capabilities;
    return complete({ protocolVersion: "2025-11-25", capabilities, serverInfo: info });
  }
  const modern = params?._meta?.["io.modelcontextprotocol/protocolVersion"] !== undefined;
  if (era === "modern" && !modern) {
    return write({ id, error: { code: -32022, message: "only 2026-07-28 is spoken here" } });
  }
  if (era === "modern" && method === "server/discover") {
    return complete({ supportedVersions: ["2026-07-28"], capabilities, ...kept });
  }
  if (method === "tools/list") return complete({ tools, ...kept });
  if (method === "tools/call") return call(id, params, complete);
  if (method === "subscriptions/listen") {
    if (params.notifications.taskIds !== undefined) seen.heard.push(method);
    return write({ method: "notifications/subscriptions/acknowledged", params: {
      notifications: params.notifications, _meta: { "io.modelcontextprotocol/subscriptionId": id } } });
  }
  if (method.startsWith("tasks/")) return follow(id, method, params, complete);
  write({ id, error: { code: -32601, message: "no such method" } });
}

if (mode === "http") {
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const part of request) body += part;
    const sent = request.headers["mcp-name"];
    const { taskId } = JSON.parse(body).params ?? {};
    // As the extension wants it: who routes by the header must find the task.
    if (taskId !== undefined && sent !== taskId) return response.writeHead(400).end();
    write = (message) => {
      response.setHeader("Content-Type", "application/json");
      response.end(JSON.stringify({ jsonrpc: "2.0", ...message }));
    };
    handle(body);
    if (JSON.parse(body).id === undefined) response.writeHead(202).end();
  });
  server.listen(0, "127.0.0.1", () => console.log(server.address().port));
} else createInterface({ input: process.stdin }).on("line", handle);
