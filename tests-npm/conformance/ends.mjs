// What stands at the two ends of a comparison: the reference server, Holdpoint in front of it, and
// the plain words between them. Everything started here ends with this process.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { fileURLToPath } from "node:url";

export const here = dirname(fileURLToPath(import.meta.url));
const START_MS = 30_000;
const children = [];
const folders = [];

/** Starts a program and gives the JSON that it says first. */
async function start(program, args, options) {
  const child = spawn(program, args, { stdio: ["pipe", "pipe", "inherit"], ...options });
  children.push(child);
  const patience = { signal: AbortSignal.timeout(START_MS) };
  const said = once(createInterface(child.stdout), "line", patience);
  const ended = once(child, "exit").then(([code]) => {
    throw new Error(`${program} ended with ${code}`);
  });
  ended.catch(() => {});
  const [line] = await Promise.race([said, ended]);
  return JSON.parse(line);
}

/** Starts the reference server; `era` is `legacy`, `modern` or `both`. Gives its URL. */
export async function reference(era) {
  const { url } = await start(process.execPath, [join(here, "server.mjs"), "--era", era]);
  return url;
}

/** Starts Holdpoint in front of these servers, by name; gives where it listens. */
export async function holdpoint(program, servers) {
  const folder = mkdtempSync(join(tmpdir(), "holdpoint-conformance-"));
  folders.push(folder);
  const file = join(folder, "holdpoint.toml");
  const blocks = Object.entries(servers).map(
    ([name, url]) => `
[server.${name}]
url = ${JSON.stringify(url)}
environment = "dev"
read = ["*"]
`,
  );
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
${blocks.join("")}`,
  );
  const args = ["--config", file, "--format", "json", "serve"];
  const log = { cwd: folder, stdio: ["pipe", "pipe", "ignore"] };
  return (await start(program, args, log)).url;
}

/**
 * Stands before the endpoint of all servers and takes the server's name off its tools and prompts,
 * because the suite asks for them by their own names. Everything else passes as it is.
 */
export async function plainNames(endpoint, server) {
  const prefix = `${server}__`;
  const proxy = createServer((request, response) => {
    forward(request, response, endpoint, prefix).catch(() => response.destroy());
  });
  await once(proxy.listen(0, "127.0.0.1"), "listening");
  proxy.unref();
  return `http://127.0.0.1:${proxy.address().port}/mcp`;
}

async function forward(request, response, endpoint, prefix) {
  const gone = new AbortController();
  response.once("close", () => gone.abort());
  const headers = Object.fromEntries(
    Object.entries(request.headers).filter(([name]) => !HOP_BY_HOP.has(name)),
  );
  const isPost = request.method === "POST";
  const body = isPost ? named(await buffer(request), headers, prefix) : undefined;
  const { host, origin } = request.headers;
  // What the proxy must not make right: a foreign host or origin stays foreign.
  const own = `127.0.0.1:${request.socket.localPort}`;
  const isForeign = host !== own || (origin !== undefined && origin !== `http://${own}`);
  delete headers.origin;
  if (isForeign) headers.origin = FOREIGN;
  const answer = await fetch(endpoint, {
    method: request.method,
    headers,
    body,
    signal: gone.signal,
  });
  const kept = [...answer.headers].filter(([name]) => !HOP_BY_HOP.has(name));
  response.writeHead(answer.status, Object.fromEntries(kept));
  response.flushHeaders();
  let rest = "";
  for await (const chunk of Readable.fromWeb(answer.body ?? new Blob().stream())) {
    // A name may be cut in two: what could be the start of one waits for the next chunk.
    const all = (rest + chunk.toString("latin1")).replaceAll(prefix, "");
    const cut = all.length - overlap(all, prefix);
    response.write(all.slice(0, cut), "latin1");
    rest = all.slice(cut);
  }
  response.end(rest, "latin1");
}

const FOREIGN = "http://foreign.invalid";
const HOP_BY_HOP = new Set([
  "connection",
  "content-length",
  "host",
  "keep-alive",
  "transfer-encoding",
]);

/** How much of the text's end is a beginning of the prefix. */
function overlap(text, prefix) {
  for (let length = prefix.length - 1; length > 0; length -= 1) {
    if (text.endsWith(prefix.slice(0, length))) return length;
  }
  return 0;
}

/** The body with the server's name put before what is asked for, and the header likewise. */
function named(bytes, headers, prefix) {
  let message;
  try {
    message = JSON.parse(bytes);
  } catch {
    return bytes;
  }
  const { method, params } = message;
  if (method === "tools/call" || method === "prompts/get") {
    if (typeof params?.name === "string") params.name = prefix + params.name;
    if (headers["mcp-name"] !== undefined) headers["mcp-name"] = prefix + headers["mcp-name"];
  }
  if (params?.ref?.type === "ref/prompt") params.ref.name = prefix + params.ref.name;
  return JSON.stringify(message);
}

/** Ends everything that was started. */
export function end() {
  for (const child of children) child.kill("SIGTERM");
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
}
process.once("exit", end);
