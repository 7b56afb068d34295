// A small MCP server on standard input and output, well-behaved or hostile by tool name.
//
// It speaks both eras. The environment says what else it does:
//   PEER_TOOLS=FILE   a JSON array of definitions that are offered besides its own, read at every
//                     `tools/list`; a tool of this list echoes its arguments
//   PEER_START=HOW    `exit`: ends at the first message; `mute`: never answers; `garbage`: answers
//                     with what is no JSON
import { appendFileSync, readFileSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";

const start = process.env.PEER_START ?? "";
const text = (words) => ({ content: [{ type: "text", text: words }] });
const write = (line) => process.stdout.write(line + "\n");
const say = (id, result) => write(JSON.stringify({ jsonrpc: "2.0", id, result }));

const tools = {
  echo: (id, { text: words }) => say(id, text(words)),
  touch: (id, { path, words, then }) => {
    writeFileSync(path, words ?? "touched", { flag: "wx" });
    if (then !== "hang") say(id, text("touched"));
  },
  append: (id, { path }) => {
    appendFileSync(path, "once\n");
    say(id, text("appended"));
  },
  die: () => process.exit(7),
  hang: () => {},
  flood: () => {
    const data = "x".repeat(60_000);
    const params = { level: "info", data };
    const line = JSON.stringify({ jsonrpc: "2.0", method: "notifications/message", params });
    const more = () => {
      while (process.stdout.write(line + "\n"));
      process.stdout.once("drain", more);
    };
    more();
  },
  twice: (id) => (say(id, text("first")), say(id, text("second"))),
  wrong_id: (id) => say(`not-${id}`, text("for nobody")),
  null_id: () => write('{"jsonrpc":"2.0","id":null,"result":{}}'),
  large: (id) => say(id, text("x".repeat(20 << 20))),
  not_utf8: (id) => {
    const head = Buffer.from(`{"jsonrpc":"2.0","id":${JSON.stringify(id)},"result":{"x":"`);
    process.stdout.write(Buffer.concat([head, Buffer.from([0xff, 0xfe]), Buffer.from('"}}\n')]));
  },
  malformed: (id) => write(`{"jsonrpc":"2.0","id":${JSON.stringify(id)},"result":{`),
  no_object: (id) => say(id, [1]),
  chatter: (id) => (write("debug: somebody left a print in"), say(id, text("fine"))),
  protocol_error: (id) =>
    write(JSON.stringify({ jsonrpc: "2.0", id, error: { code: -32000, message: "no" } })),
};

const listed = () => {
  const object = { type: "object" };
  const own = Object.keys(tools).map((name) => ({ name, inputSchema: object }));
  const path = { type: "object", properties: { path: { type: "string" } }, required: ["path"] };
  own.find(({ name }) => name === "touch").inputSchema = path;
  const file = process.env.PEER_TOOLS;
  return file ? own.concat(JSON.parse(readFileSync(file, "utf8"))) : own;
};

const call = (id, { name, arguments: parameters }) => {
  const tool = tools[name];
  if (!tool) return say(id, text(JSON.stringify(parameters)));
  try {
    tool(id, parameters ?? {});
  } catch (fault) {
    say(id, { ...text(String(fault)), isError: true });
  }
};

const capabilities = { tools: { listChanged: true } };
const serverInfo = { name: "peer", version: "1" };
const methods = {
  initialize: (id, { protocolVersion }) => say(id, { protocolVersion, capabilities, serverInfo }),
  "server/discover": (id) =>
    say(id, { resultType: "complete", supportedVersions: ["2026-07-28"], capabilities }),
  "tools/list": (id) => say(id, { resultType: "complete", tools: listed() }),
  "tools/call": call,
  ping: (id) => say(id, {}),
  // For tests of what passes through without being governed.
  "test/echo": (id, params) => say(id, params),
  "test/hang": () => {},
};

createInterface({ input: process.stdin }).on("line", (line) => {
  const { id, method, params } = JSON.parse(line);
  if (start === "exit") process.exit(3);
  if (start === "mute" || id === undefined || method === undefined) return;
  if (start === "garbage") return write(`{"jsonrpc":"2.0","id":${JSON.stringify(id)},`);
  if (methods[method]) return methods[method](id, params ?? {});
  write(JSON.stringify({ jsonrpc: "2.0", id, error: { code: -32601, message: "unknown method" } }));
});
