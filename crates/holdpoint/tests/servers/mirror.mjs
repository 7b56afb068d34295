// An MCP server that says word for word what it is told to say, and tells word for word what it
// heard. It understands:
//   mirror/say    {lines}  writes these lines, then answers
//   mirror/heard  {}       answers with the lines heard since the last time
// Any other request is answered with the text in `params.answer`, which is the result as it stands.
// The words of its command are its tools.
import { createInterface } from "node:readline";

let heard = [];
const tool = (name) => ({ name, inputSchema: {}, annotations: { readOnlyHint: true } });
const tools = JSON.stringify({ tools: process.argv.slice(2).map(tool) });
const write = (line) => process.stdout.write(line + "\n");
const say = (id, result) =>
  write(`{"jsonrpc":"2.0","id":${JSON.stringify(id)},"result":${result}}`);
const capabilities = { tools: {}, resources: {}, prompts: {}, logging: {} };
const opening = {
  protocolVersion: "2025-11-25",
  capabilities,
  serverInfo: { name: "mirror", version: "1" },
};

createInterface({ input: process.stdin }).on("line", (line) => {
  const { id, method, params } = JSON.parse(line);
  if (method === "initialize") return say(id, JSON.stringify(opening));
  if (method === "tools/list") return say(id, tools);
  if (method === "mirror/say") {
    for (const said of params.lines) write(said);
    return say(id, "{}");
  }
  if (method === "mirror/heard") {
    say(id, JSON.stringify({ lines: heard }));
    heard = [];
    return;
  }
  heard.push(line);
  if (id !== undefined && method !== undefined) say(id, params?.answer ?? "{}");
});
