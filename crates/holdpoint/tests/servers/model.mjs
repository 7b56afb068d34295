// A model by script, behind the Messages API on loopback: it calls the tools of its first argument,
// a JSON list of `{name, input}`, one after the other, then says `done`. The first line that it
// prints is its port; each further one is the result of a call, as a JSON text.
import { createServer } from "node:http";

const calls = JSON.parse(process.argv[2]);
let seen = 0;

function answer(asked) {
  const blocks = asked.messages.flatMap(({ content }) => (Array.isArray(content) ? content : []));
  const results = blocks.filter((block) => block.type === "tool_result");
  for (; seen < results.length; seen += 1) console.log(JSON.stringify(results[seen]));
  // What has no tools is a question about the conversation, not a turn of it.
  const call = asked.tools?.length ? calls[results.length] : undefined;
  if (!call) return [{ type: "text", text: "done" }, "end_turn"];
  return [{ type: "tool_use", id: `toolu_${process.pid}_${results.length}`, ...call }, "tool_use"];
}

function events([block, reason], model) {
  const usage = { input_tokens: 1, output_tokens: 1 };
  const message = { id: "msg_1", type: "message", role: "assistant", model, usage };
  const text = block.type === "text";
  const empty = text ? { ...block, text: "" } : { ...block, input: {} };
  const delta = text
    ? { type: "text_delta", text: block.text }
    : { type: "input_json_delta", partial_json: JSON.stringify(block.input) };
  return [
    ["message_start", { message: { ...message, content: [], stop_reason: null } }],
    ["content_block_start", { index: 0, content_block: empty }],
    ["content_block_delta", { index: 0, delta }],
    ["content_block_stop", { index: 0 }],
    ["message_delta", { delta: { stop_reason: reason, stop_sequence: null }, usage }],
    ["message_stop", {}],
  ];
}

const server = createServer(async (request, response) => {
  let body = "";
  for await (const part of request) body += part;
  if (request.method !== "POST" || !/^\/v1\/messages(\?|$)/.test(request.url)) {
    response.writeHead(404).end();
    return;
  }
  const asked = JSON.parse(body);
  const said = answer(asked);
  if (!asked.stream) {
    const [block, stop_reason] = said;
    const usage = { input_tokens: 1, output_tokens: 1 };
    const whole = { id: "msg_1", type: "message", role: "assistant", model: asked.model, usage };
    response.writeHead(200, { "content-type": "application/json" });
    response.end(JSON.stringify({ ...whole, content: [block], stop_reason, stop_sequence: null }));
    return;
  }
  response.writeHead(200, { "content-type": "text/event-stream" });
  for (const [type, more] of events(said, asked.model)) {
    response.write(`event: ${type}\ndata: ${JSON.stringify({ type, ...more })}\n\n`);
  }
  response.end();
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
