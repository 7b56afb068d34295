// An MCP server that asks whoever calls it, in the era that its argument names: `legacy` (a
// handshake, questions are requests of its own) or `modern` (no handshake, questions are results).
// With a port as second argument, a modern one listens there (streamable HTTP).
// Tools:
//   confirm  asks the user once (elicitation), then answers with what came back
//   chain    asks the user, then the model (sampling), then for the roots, and answers with all three
//   endless  never has enough
//   change   says that its tools changed
//   runs     tells how often `confirm` and `chain` were run to their end
// It asks whether or not the client can answer: a gateway must not rely on good manners.
import { createServer } from "node:http";
import { createInterface } from "node:readline";

const era = process.argv[2] ?? "legacy";
let out = (text) => process.stdout.write(text + "\n");
const write = (message) => out(JSON.stringify({ jsonrpc: "2.0", ...message }));
const note = (method, params) => write({ method, params });
const info = { name: "asker", version: "1" };
const capabilities = {
  tools: { listChanged: true }, resources: { subscribe: true }, prompts: {}, logging: {},
};
const tool = (name) => ({ name, description: name, inputSchema: { type: "object" } });
const tools = ["confirm", "chain", "endless", "runs", "change"].map(tool);
const questions = {
  user: ["elicitation/create", { message: "Go on?", requestedSchema: { type: "object", properties: {} } }],
  model: ["sampling/createMessage", { maxTokens: 5, messages: [
    { role: "user", content: { type: "text", text: "hi" } }] }],
  roots: ["roots/list", {}],
};
const order = { confirm: ["user"], chain: ["user", "model", "roots"], endless: ["user"] };
let runs = 0;
const text = (said) => ({ content: [{ type: "text", text: said }] });

// Legacy.
let last = 0;
let cancelled = [];
const waiting = new Map();
const ask = (key) =>
  new Promise((found) => {
    waiting.set(++last, found);
    write({ id: last, method: questions[key][0], params: questions[key][1] });
  });
async function legacyCall(id, params) {
  const said = {};
  if (params.name === "change") note("notifications/tools/list_changed");
  const token = params._meta?.progressToken;
  for (const [at, key] of (order[params.name] ?? []).entries()) {
    if (token !== undefined) note("notifications/progress", { progressToken: token, progress: at });
    const { result, error } = await ask(key);
    said[key] = result ?? { error: error.message, reason: error.data?.reason };
  }
  if (params.name === "endless") return legacyCall(id, params);
  if (params.name === "runs") return write({ id, result: text(JSON.stringify({ runs, cancelled })) });
  runs += 1;
  write({ id, result: text(JSON.stringify(said)) });
}

// Modern.
const complete = (id, result) =>
  write({ id, result: { resultType: "complete", ...result, _meta: {
    ...result._meta, "io.modelcontextprotocol/serverInfo": info } } });
function modernCall(id, params) {
  const keys = order[params.name];
  if (params.name === "runs") return complete(id, text(JSON.stringify({ runs, cancelled })));
  const state = params.requestState === undefined ? { at: 0, said: {} } : JSON.parse(params.requestState);
  if (params.requestState !== undefined) {
    const reply = params.inputResponses?.[keys[state.at % keys.length]];
    if (reply !== undefined) {
      state.said[keys[state.at % keys.length]] = reply;
      state.at += 1;
    }
  }
  if (params.name !== "endless" && state.at >= keys.length) {
    runs += 1;
    return complete(id, text(JSON.stringify(state.said)));
  }
  const key = keys[state.at % keys.length];
  const [method, asked] = questions[key];
  write({ id, result: {
    resultType: "input_required",
    inputRequests: { [key]: { method, params: asked } },
    requestState: JSON.stringify(state),
  } });
}
const subscriptions = new Map();
function listen(id, params) {
  const meta = { "io.modelcontextprotocol/subscriptionId": id };
  subscriptions.set(id, params.notifications);
  note("notifications/subscriptions/acknowledged", { notifications: params.notifications, _meta: meta });
  for (const uri of params.notifications.resourceSubscriptions ?? []) {
    note("notifications/resources/updated", { uri, _meta: meta });
  }
  if (params.notifications.toolsListChanged) note("notifications/tools/list_changed", { _meta: meta });
}

function hear(line) {
  const { id, method, params, result, error } = JSON.parse(line);
  if (method === undefined) {
    waiting.get(id)?.({ result, error });
    waiting.delete(id);
    return;
  }
  if (method === "notifications/cancelled") cancelled.push(params.requestId);
  if (id === undefined) return;
  const modern = params?._meta?.["io.modelcontextprotocol/protocolVersion"] !== undefined;
  const refuse = (code, message) => write({ id, error: { code, message } });
  if (era === "legacy") {
    if (method === "initialize") {
      const protocolVersion = "2025-11-25";
      return write({ id, result: { protocolVersion, capabilities, serverInfo: info, asked: params } });
    }
    if (method === "tools/list") return write({ id, result: { tools } });
    if (method === "tools/call") return void legacyCall(id, params);
    if (method === "logging/setLevel") {
      write({ id, result: {} });
      return note("notifications/message", { level: params.level, data: "level set" });
    }
    if (method === "resources/subscribe") {
      write({ id, result: {} });
      return note("notifications/resources/updated", { uri: params.uri });
    }
    if (method === "resources/read") {
      return write({ id, result: { contents: [{ uri: params.uri, text: "read" }] } });
    }
    return refuse(-32601, "no such method");
  }
  if (!modern) return refuse(-32022, "only 2026-07-28 is spoken here");
  if (method === "server/discover") {
    return complete(id, { supportedVersions: ["2026-07-28"], capabilities, ttlMs: 0, cacheScope: "private" });
  }
  if (method === "tools/list") return complete(id, { tools, ttlMs: 0, cacheScope: "private" });
  if (method === "tools/call") return modernCall(id, params);
  if (method === "subscriptions/listen") return listen(id, params);
  if (method === "resources/read") {
    return complete(id, { contents: [{ uri: params.uri, text: "read" }], ttlMs: 0, cacheScope: "private" });
  }
  return refuse(-32601, "no such method");
}

if (process.argv[3] === undefined) {
  createInterface({ input: process.stdin }).on("line", hear);
} else {
  createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    if (request.method !== "POST") return response.writeHead(405).end();
    const { id, method } = JSON.parse(body);
    const follows = method === "subscriptions/listen";
    const type = follows ? "text/event-stream" : "application/json";
    response.writeHead(id === undefined ? 202 : 200, { "content-type": type });
    if (id === undefined) return response.end();
    // A modern server answers at once: nothing else is said in between.
    out = (text) => (follows ? response.write(`data: ${text}\n\n`) : response.end(text));
    hear(body);
  }).listen(Number(process.argv[3]), "127.0.0.1");
}
