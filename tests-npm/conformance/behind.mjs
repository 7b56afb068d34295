// What the conformance suite runs as "the client": a Holdpoint in front of the scenario's server,
// and behind it a plain client that does what the scenario expects. What is tested is how Holdpoint
// behaves towards the scenario's server.
//
//   HOLDPOINT=PROGRAM node behind.mjs URL
//
// The suite names the scenario in MCP_CONFORMANCE_SCENARIO.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";

const upstream = process.argv.at(-1);
const scenario = process.env.MCP_CONFORMANCE_SCENARIO ?? "";
const revision = process.env.MCP_CONFORMANCE_PROTOCOL_VERSION ?? "2025-11-25";
const context = JSON.parse(process.env.MCP_CONFORMANCE_CONTEXT ?? "{}");
const holdpoint = process.env.HOLDPOINT;
const wantsOAuth = scenario.startsWith("auth/");
const folder = mkdtempSync(join(tmpdir(), "holdpoint-client-"));
const file = join(folder, "holdpoint.toml");
// The document that the suite's authorization servers know.
const DOCUMENT = "https://conformance-test.local/client-metadata.json";
const LOGINS_MAX = 3;
const DEBUG = process.env.BEHIND_DEBUG !== undefined;

function oauth() {
  if (!wantsOAuth) return "";
  const lines = ["[server.upstream.oauth]"];
  if (context.client_id !== undefined) lines.push(`client_id = ${JSON.stringify(context.client_id)}`);
  else lines.push(`client_metadata = ${JSON.stringify(DOCUMENT)}`);
  if (context.client_secret !== undefined) lines.push('client_secret = { from_env = "SUITE_SECRET" }');
  if (scenario.includes("client-credentials")) lines.push('grant = "client-credentials"');
  return lines.join("\n");
}

writeFileSync(
  file,
  `[listen]
http = "127.0.0.1:0"
anonymous_agent = "conformance"

[team.conformance]
on_call = "nobody"

[agent.conformance]
owner = "conformance"
grants = [{ class = "read", tools = ["*"] }, { class = "write", tools = ["*"] }]

[server.upstream]
url = ${JSON.stringify(upstream)}
environment = "dev"
timeout_ms = 20000
read = ["*"]
${oauth()}
`,
);

const env = { ...process.env, SUITE_SECRET: context.client_secret ?? "" };
const start = (args, stdio) =>
  spawn(holdpoint, ["--config", file, "--format", "json", ...args], { env, cwd: folder, stdio });
const log = (...words) => DEBUG && console.error(...words);

async function* lines(stream) {
  let rest = "";
  for await (const chunk of stream) {
    rest += chunk;
    for (let end = rest.indexOf("\n"); end >= 0; end = rest.indexOf("\n")) {
      yield rest.slice(0, end);
      rest = rest.slice(end + 1);
    }
  }
}

const ended = (child) => new Promise((done) => child.once("exit", done));

/** Logs the agent in: the person consents at once, as the suite's servers do. */
async function login(scopes) {
  const more = scopes.flatMap((scope) => ["--scope", scope]);
  const args = ["login", "upstream", "--agent", "conformance", "--wait", "10", ...more];
  const child = start(args, ["ignore", "pipe", "inherit"]);
  const end = ended(child);
  for await (const line of lines(child.stdout)) {
    const { open } = JSON.parse(line);
    if (open !== undefined) {
      log("open", open);
      await fetch(open).catch((error) => console.error(`the browser failed: ${error}`));
    }
  }
  const code = await end;
  if (code !== 0) throw new Error(`login ended with ${code}`);
}

/** Does `work`; logs in, or extends the scope, where Holdpoint says that this is needed. */
async function loggedIn(work) {
  for (let logins = 0; ; logins += 1) {
    try {
      return await work();
    } catch (error) {
      const [, more] = `${error.message}`.match(/`holdpoint login \S+ --agent \S+([^`]*)`/) ?? [];
      if (more === undefined || logins === LOGINS_MAX) throw error;
      log("login", more);
      await login([...more.matchAll(/--scope (\S+)/g)].map(([, scope]) => scope));
    }
  }
}

/** Arguments that fit a schema. */
function argumentsFor(tool, all = []) {
  // A tool that wants to see the schema of another as it came.
  if (tool.inputSchema?.properties?.schema?.type === "object") {
    return { schema: all.find((other) => other.name !== tool.name)?.inputSchema };
  }
  const values = Object.entries(tool.inputSchema?.properties ?? {}).map(([name, property]) => {
    const one = { number: 2, integer: 2, boolean: true, array: [], object: {} };
    return [name, property.default ?? property.enum?.[0] ?? one[property.type] ?? "text"];
  });
  return Object.fromEntries(values);
}

const failed = (result) => {
  if (result?.isError !== true) return result;
  throw new Error(result.content?.map((part) => part.text).join(" "));
};

/** A legacy client, with the SDK. */
async function legacy(url) {
  const connect = async () => {
    const client = new Client(
      { name: "behind", version: "1" },
      { capabilities: { elicitation: { form: { applyDefaults: true } } } },
    );
    client.setRequestHandler(ElicitRequestSchema, () => ({ action: "accept", content: {} }));
    await client.connect(new StreamableHTTPClientTransport(new URL(url)));
    const { tools } = await client.listTools();
    return { client, tools };
  };
  const { client, tools } = await loggedIn(connect);
  for (const tool of tools) {
    const call = { name: tool.name, arguments: argumentsFor(tool, tools) };
    const called = loggedIn(async () => failed(await client.callTool(call)));
    await called.catch((error) => console.error(`${tool.name}: ${error.message}`));
  }
  await client.close();
}

/** The headers that say again what the schema wants said twice (2026-07-28, `x-mcp-header`). */
function mirrored(schema, all = {}) {
  const named = Object.entries(schema?.properties ?? {}).filter(
    ([name, property]) => property["x-mcp-header"] !== undefined && all[name] !== undefined,
  );
  return Object.fromEntries(
    named.map(([name, property]) => {
      const text = `${all[name]}`;
      const plain = /^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$/.test(text) && !text.startsWith("=?base64?");
      const value = plain ? text : `=?base64?${Buffer.from(text).toString("base64")}?=`;
      return [`mcp-param-${property["x-mcp-header"]}`, value];
    }),
  );
}

/** A modern client, by hand. */
async function modern(url) {
  let last = 0;
  let schemas = new Map();
  const ask = async (method, params = {}) => {
    const capabilities = { elicitation: { form: {} }, sampling: {}, roots: {} };
    const prefix = "io.modelcontextprotocol/";
    const meta = {
      [`${prefix}protocolVersion`]: "2026-07-28",
      [`${prefix}clientCapabilities`]: capabilities,
      [`${prefix}clientInfo`]: { name: "behind", version: "1" },
    };
    const headers = {
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
      "mcp-protocol-version": "2026-07-28",
      "mcp-method": method,
    };
    const name = params.name ?? params.uri;
    if (name !== undefined) headers["mcp-name"] = name;
    if (method === "tools/call") Object.assign(headers, mirrored(schemas.get(name), params.arguments));
    const id = (last += 1);
    const body = JSON.stringify({ jsonrpc: "2.0", id, method, params: { ...params, _meta: meta } });
    const answer = await fetch(url, { method: "POST", headers, body });
    let text = await answer.text();
    if (answer.headers.get("content-type")?.startsWith("text/event-stream")) {
      const data = [...text.matchAll(/^data: ?(.+)$/gm)].map(([, line]) => line);
      text = data.find((line) => JSON.parse(line).id === id);
    }
    const message = JSON.parse(text);
    log(method, name, JSON.stringify(message).slice(0, 300));
    if (message.error) throw new Error(`${message.error.message} ${message.error.data?.detail ?? ""}`);
    return failed(message.result);
  };
  const reply = ({ method, params }) => {
    if (method === "roots/list") return { roots: [] };
    if (method === "sampling/createMessage") {
      return { role: "assistant", model: "none", content: { type: "text", text: "text" } };
    }
    return { action: "accept", content: argumentsFor({ inputSchema: params?.requestedSchema }) };
  };
  const settle = async (method, params) => {
    let result = await ask(method, params);
    for (let round = 0; round < 5 && result.resultType === "input_required"; round += 1) {
      const asked = Object.entries(result.inputRequests ?? {});
      const inputResponses = Object.fromEntries(asked.map(([key, one]) => [key, reply(one)]));
      const state = result.requestState === undefined ? {} : { requestState: result.requestState };
      result = await ask(method, { ...params, inputResponses, ...state });
    }
    return result;
  };
  const tools = async () => (await ask("tools/list")).tools;
  const found = await loggedIn(tools);
  schemas = new Map(found.map((tool) => [tool.name, tool.inputSchema]));
  const quietly = (work) => loggedIn(work).catch((error) => console.error(error.message));
  const own = found.map((tool) => ({ name: tool.name, arguments: argumentsFor(tool, found) }));
  // Holdpoint refuses a null where the schema wants something else, so it is left out here.
  const given = context.toolCalls?.map(({ name, arguments: all }) => {
    const some = Object.entries(all).filter(([, value]) => value !== null);
    return { name, arguments: Object.fromEntries(some) };
  });
  const calls = given ?? own;
  for (const call of calls) await quietly(() => settle("tools/call", call));
  if (wantsOAuth) return;
  const { resources = [] } = (await quietly(() => ask("resources/list"))) ?? {};
  for (const { uri } of resources) await quietly(() => settle("resources/read", { uri }));
  const { prompts = [] } = (await quietly(() => ask("prompts/list"))) ?? {};
  for (const { name } of prompts) await quietly(() => settle("prompts/get", { name }));
}

const serve = start(["serve"], ["ignore", "pipe", DEBUG ? "inherit" : "ignore"]);
try {
  const { value } = await lines(serve.stdout).next();
  const url = `${JSON.parse(value).url}/upstream`;
  const client = revision === "2026-07-28" ? modern : legacy;
  await client(url);
} catch (error) {
  // A scenario that expects the client to give up wants to see that it did.
  console.error(error.message);
  process.exitCode = 1;
} finally {
  serve.kill("SIGTERM");
  await ended(serve);
  rmSync(folder, { recursive: true, force: true });
}
