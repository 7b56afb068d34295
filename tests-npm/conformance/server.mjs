// A server that implements the scenarios of the official suite, over HTTP on a free port:
//
//   node server.mjs [--era legacy|modern|both]
//
// `legacy` speaks the revisions with `initialize` and sessions only, `modern` 2026-07-28 only.
// Prints one line of JSON with its URL when it is ready, and ends when standard input does.
import {
  NodeStreamableHTTPServerTransport,
  localhostHostValidation,
  localhostOriginValidation,
  toNodeHandler,
  toWebRequest,
} from "@modelcontextprotocol/node";
import { McpServer, createMcpHandler, isLegacyRequest } from "@modelcontextprotocol/server";
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { text } from "node:stream/consumers";
import { parseArgs } from "node:util";
import { offer, rounds } from "./scenarios.mjs";

const { values } = parseArgs({ options: { era: { type: "string", default: "both" } } });
if (!["legacy", "modern", "both"].includes(values.era)) {
  console.error("usage: node server.mjs [--era legacy|modern|both]");
  process.exit(2);
}

const changes = { listChanged: true };
const OPTIONS = {
  capabilities: {
    completions: {},
    logging: {},
    prompts: changes,
    resources: { ...changes, subscribe: true },
    tools: changes,
  },
  requestState: { verify: rounds.verify },
};

function build(notify) {
  const server = new McpServer({ name: "holdpoint-reference", version: "1.0.0" }, OPTIONS);
  offer(server, notify(server));
  return server;
}

/** What was sent on streams that may be taken up again: enough for one process and one test. */
class Events {
  #sent = [];

  async storeEvent(stream, message) {
    this.#sent.push({ stream, message });
    return String(this.#sent.length);
  }

  async getStreamIdForEventId(id) {
    return this.#sent[Number(id) - 1]?.stream;
  }

  async replayEventsAfter(last, { send }) {
    const { stream } = this.#sent[Number(last) - 1];
    for (const [index, event] of this.#sent.entries()) {
      const missed = index >= Number(last) && event.stream === stream;
      // The first event of a stream only names it.
      if (missed && event.message.jsonrpc) await send(String(index + 1), event.message);
    }
    return stream;
  }
}

// === the two eras ===

const modern = createMcpHandler(() => build(() => modern.notify), { legacy: "reject" });
const answerModern = toNodeHandler(modern);

const sessions = new Map();

async function open() {
  const transport = new NodeStreamableHTTPServerTransport({
    sessionIdGenerator: randomUUID,
    onsessioninitialized: (id) => sessions.set(id, transport),
    onsessionclosed: (id) => sessions.delete(id),
    eventStore: new Events(),
    retryInterval: 50,
  });
  const server = build(({ server }) => ({
    toolsChanged: () => server.sendToolListChanged(),
    promptsChanged: () => server.sendPromptListChanged(),
  }));
  const done = async () => ({});
  server.server.setRequestHandler("resources/subscribe", done);
  server.server.setRequestHandler("resources/unsubscribe", done);
  await server.connect(transport);
  return transport;
}

const refuse = (response, status, message) => {
  response.writeHead(status, { "Content-Type": "application/json" });
  const error = { code: -32000, message };
  response.end(JSON.stringify({ jsonrpc: "2.0", error, id: null }));
};

async function answerLegacy(request, response, body) {
  const id = request.headers["mcp-session-id"];
  if (id !== undefined) {
    const session = sessions.get(id);
    if (session === undefined) return refuse(response, 404, "Session not found");
    return session.handleRequest(request, response, body);
  }
  if (body?.method !== "initialize") return refuse(response, 400, "Session required");
  return (await open()).handleRequest(request, response, body);
}

// === HTTP ===

async function parsed(request) {
  if (request.method !== "POST") return undefined;
  try {
    return JSON.parse(await text(request));
  } catch {
    return null;
  }
}

const isLocalHost = localhostHostValidation();
const isLocalOrigin = localhostOriginValidation();

async function answer(request, response) {
  if (!isLocalHost(request, response) || !isLocalOrigin(request, response)) return;
  const body = await parsed(request);
  if (body === null) return refuse(response, 400, "Not JSON");
  const legacy =
    values.era === "legacy" ||
    (values.era === "both" && (await isLegacyRequest(await toWebRequest(request, body), body)));
  return legacy ? answerLegacy(request, response, body) : answerModern(request, response, body);
}

const http = createServer((request, response) => {
  answer(request, response).catch((fault) => {
    console.error(fault);
    response.destroy();
  });
});
http.listen(0, "127.0.0.1", () => {
  console.log(JSON.stringify({ url: `http://localhost:${http.address().port}/mcp` }));
});
process.stdin.resume().once("end", () => process.exit(0));
