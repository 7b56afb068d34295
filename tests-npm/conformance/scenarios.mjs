// What the reference server offers: the tools, prompts and resources that the scenarios of the
// official suite ask for, written once for both eras. The suite's own descriptions say what each
// has to do; nothing here knows how a request came.
import {
  ResourceTemplate,
  acceptedContent,
  completable,
  createRequestStateCodec,
  fromJsonSchema,
  inputRequired,
} from "@modelcontextprotocol/server";
import { randomBytes } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import { z } from "zod";

// One red pixel, and a WAV file of no samples.
const PNG =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC";
const WAV = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA=";
const MIXED = JSON.stringify({ test: "data", value: 123 });
const STEP_MS = 50;
const REGION = { type: "string", "x-mcp-header": "Region" };
const CAPABILITIES = "io.modelcontextprotocol/clientCapabilities";

/** Seals what a round of questions has to remember; the key dies with the process. */
export const rounds = createRequestStateCodec({ key: randomBytes(32) });

const text = (text) => ({ type: "text", text });
const image = { type: "image", data: PNG, mimeType: "image/png" };
const resource = (uri, mimeType, text) => ({ type: "resource", resource: { uri, mimeType, text } });
const say = (words) => ({ content: [text(words)] });
const object = (properties, more = {}) => ({ type: "object", properties, ...more });
const NOTHING = object({});
const strings = (...names) => {
  const entries = names.map((name) => [name, { type: "string" }]);
  return object(Object.fromEntries(entries), { required: names });
};

const ask = (message, requestedSchema) => inputRequired.elicit({ message, requestedSchema });
const complete = (prompt, maxTokens) =>
  inputRequired.createMessage({ messages: [{ role: "user", content: text(prompt) }], maxTokens });
const answered = (ctx, key) => ctx.mcpReq.inputResponses?.[key];
const accepted = (ctx, key) => acceptedContent(ctx.mcpReq.inputResponses, key);

/** The client's capabilities, however it said them. */
const capabilities = (ctx, server) =>
  ctx.mcpReq.envelope?.[CAPABILITIES] ?? server.server.getClientCapabilities() ?? {};

/** A tool that asks one question and says what came back. */
const asks = (key, request, done) => (_, ctx) => {
  const answer = answered(ctx, key);
  const reply = answer && done(answer, accepted(ctx, key));
  return reply ? say(reply) : inputRequired({ inputRequests: { [key]: request } });
};

const outcome = ({ action, content }) =>
  `Elicitation completed: action=${action}, content=${JSON.stringify(content ?? {})}`;

const ENUMS = object({
  untitledSingle: { type: "string", enum: ["option1", "option2", "option3"] },
  titledSingle: {
    type: "string",
    oneOf: [1, 2, 3].map((n) => ({ const: `value${n}`, title: `Choice ${n}` })),
  },
  legacyEnum: {
    type: "string",
    enum: ["opt1", "opt2", "opt3"],
    enumNames: ["Option One", "Option Two", "Option Three"],
  },
  untitledMulti: {
    type: "array",
    items: { type: "string", enum: ["option1", "option2", "option3"] },
  },
  titledMulti: {
    type: "array",
    items: { anyOf: [1, 2, 3].map((n) => ({ const: `value${n}`, title: `Choice ${n}` })) },
  },
});

const DEFAULTS = object({
  name: { type: "string", default: "John Doe" },
  age: { type: "integer", default: 30 },
  score: { type: "number", default: 95.5 },
  status: { type: "string", enum: ["active", "inactive", "pending"], default: "active" },
  verified: { type: "boolean", default: true },
});

// Every keyword that the suite looks for.
const KEYWORDS = {
  $schema: "https://json-schema.org/draft/2020-12/schema",
  type: "object",
  $defs: {
    address: {
      $anchor: "addressDef",
      type: "object",
      properties: { street: { type: "string" }, city: { type: "string" } },
    },
  },
  properties: {
    name: { type: "string" },
    address: { $ref: "#/$defs/address" },
    contactMethod: { type: "string", enum: ["phone", "email"] },
    phone: { type: "string" },
    email: { type: "string" },
  },
  allOf: [{ anyOf: [{ required: ["phone"] }, { required: ["email"] }] }],
  if: { properties: { contactMethod: { const: "phone" } }, required: ["contactMethod"] },
  then: { required: ["phone"] },
  else: { required: ["email"] },
  additionalProperties: false,
};

/** All tools: name, what it does, its input, and how. */
const tools = (server, notify) => [
  [
    "test_simple_text",
    "Gives text",
    NOTHING,
    () => say("This is a simple text response for testing."),
  ],
  ["test_image_content", "Gives an image", NOTHING, () => ({ content: [image] })],
  [
    "test_audio_content",
    "Gives a sound",
    NOTHING,
    () => ({ content: [{ type: "audio", data: WAV, mimeType: "audio/wav" }] }),
  ],
  [
    "test_embedded_resource",
    "Gives a resource in the answer",
    NOTHING,
    () => ({
      content: [
        resource("test://embedded-resource", "text/plain", "This is an embedded resource content."),
      ],
    }),
  ],
  [
    "test_multiple_content_types",
    "Gives text, an image and a resource",
    NOTHING,
    () => ({
      content: [
        text("Multiple content types test:"),
        image,
        resource("test://mixed-content-resource", "application/json", MIXED),
      ],
    }),
  ],
  [
    "test_error_handling",
    "Always fails",
    NOTHING,
    () => {
      throw new Error("This tool intentionally returns an error for testing");
    },
  ],
  ["test_tool_with_logging", "Logs three times", NOTHING, logs],
  ["test_logging_tool", "Logs three times", NOTHING, logs],
  ["test_tool_with_progress", "Reports progress three times", NOTHING, progresses],
  ["test_reconnection", "Ends its stream before it answers", NOTHING, reconnects],
  ["json_schema_2020_12_tool", "Has a schema with every keyword", KEYWORDS, () => say("valid")],
  [
    "test_header_parameter",
    "Has a parameter that is also a header",
    object({ region: REGION }, { required: ["region"] }),
    ({ region }) => say(`region ${region}`),
  ],
  [
    "test_trigger_tool_change",
    "Says that the tools changed",
    NOTHING,
    () => {
      notify.toolsChanged();
      return say("told");
    },
  ],
  [
    "test_trigger_prompt_change",
    "Says that the prompts changed",
    NOTHING,
    () => {
      notify.promptsChanged();
      return say("told");
    },
  ],
  ...questions(server),
];

async function logs(_, ctx) {
  const steps = ["Tool execution started", "Tool processing data", "Tool execution completed"];
  for (const [number, step] of steps.entries()) {
    if (number > 0) await pause(STEP_MS);
    await ctx.mcpReq.log("info", step);
  }
  return say("logged");
}

async function progresses(_, ctx) {
  const progressToken = ctx.mcpReq._meta?.progressToken;
  for (const progress of [0, 50, 100]) {
    if (progress > 0) await pause(STEP_MS);
    if (progressToken === undefined) continue;
    const params = { progressToken, progress, total: 100 };
    await ctx.mcpReq.notify({ method: "notifications/progress", params });
  }
  return say("done");
}

async function reconnects(_, ctx) {
  ctx.http?.closeSSE?.();
  await pause(2 * STEP_MS);
  return say("The stream ended and was taken up again.");
}

/** The tools that ask the client something. Legacy clients are asked by requests. */
const questions = (server) => [
  [
    "test_sampling",
    "Asks the client's model",
    strings("prompt"),
    ({ prompt }, ctx) => {
      const done = (answer) => `LLM response: ${answer.content?.text}`;
      return asks("reply", complete(prompt, 100), done)({}, ctx);
    },
  ],
  [
    "test_elicitation",
    "Asks the user",
    strings("message"),
    ({ message }, ctx) => {
      const done = ({ action, content }) =>
        `User response: action: ${action}, content: ${JSON.stringify(content ?? {})}`;
      return asks("user", ask(message, strings("username", "email")), done)({}, ctx);
    },
  ],
  [
    "test_elicitation_sep1034_defaults",
    "Asks with defaults",
    NOTHING,
    asks("values", ask("Please check these values", DEFAULTS), outcome),
  ],
  [
    "test_elicitation_sep1330_enums",
    "Asks with choices of every kind",
    NOTHING,
    asks("choices", ask("Please choose", ENUMS), outcome),
  ],
  [
    "test_streaming_elicitation",
    "Asks the user",
    NOTHING,
    asks("user", ask("Who are you?", strings("name")), outcome),
  ],
  [
    "test_input_required_result_elicitation",
    "Asks for a name",
    NOTHING,
    asks("user_name", ask("What is your name?", strings("name")), (_, content) =>
      content?.name === undefined ? undefined : `Hello, ${content.name}!`,
    ),
  ],
  [
    "test_input_required_result_sampling",
    "Asks the client's model",
    NOTHING,
    asks(
      "capital_question",
      complete("What is the capital of France?", 100),
      (answer) => answer.content?.text,
    ),
  ],
  // A client that cannot answer is refused before it is asked.
  [
    "test_missing_capability",
    "Needs a client that samples",
    NOTHING,
    asks("reply", complete("Say something", 100), (answer) => answer.content?.text),
  ],
  [
    "test_input_required_result_list_roots",
    "Asks for the client's roots",
    NOTHING,
    asks("client_roots", inputRequired.listRoots(), ({ roots }) =>
      roots?.map((root) => root.uri).join("\n"),
    ),
  ],
  ["test_input_required_result_request_state", "Asks and remembers", NOTHING, confirms],
  ["test_input_required_result_tampered_state", "Asks and remembers", NOTHING, confirms],
  ["test_input_required_result_multiple_inputs", "Asks three things at once", NOTHING, askAll],
  ["test_input_required_result_multi_round", "Asks twice", NOTHING, askTwice],
  [
    "test_input_required_result_capabilities",
    "Asks what the client can answer",
    NOTHING,
    (_, ctx) => {
      const can = capabilities(ctx, server);
      const inputRequests = {
        ...(can.sampling && { greeting: complete("Generate a greeting", 50) }),
        ...(can.elicitation && { user_name: ask("What is your name?", strings("name")) }),
      };
      const open = Object.keys(inputRequests).filter((key) => !answered(ctx, key));
      return open.length === 0 ? say("answered") : inputRequired({ inputRequests });
    },
  ],
];

async function confirms(_, ctx) {
  const ok = object({ ok: { type: "boolean" } }, { required: ["ok"] });
  const remembered = ctx.mcpReq.requestState();
  if (accepted(ctx, "confirm") && remembered?.asked === true) return say("state-ok");
  return inputRequired({
    inputRequests: { confirm: ask("Please confirm", ok) },
    requestState: await rounds.mint({ asked: true }),
  });
}

async function askAll(_, ctx) {
  const inputRequests = {
    user_name: ask("What is your name?", strings("name")),
    greeting: complete("Generate a greeting", 50),
    client_roots: inputRequired.listRoots(),
  };
  const all = Object.keys(inputRequests).every((key) => answered(ctx, key));
  if (all && ctx.mcpReq.requestState()?.asked === true) return say("All is answered.");
  return inputRequired({ inputRequests, requestState: await rounds.mint({ asked: true }) });
}

async function askTwice(_, ctx) {
  const { name } = ctx.mcpReq.requestState() ?? {};
  const step1 = accepted(ctx, "step1");
  const step2 = accepted(ctx, "step2");
  if (name !== undefined && step2) return say(`${name} likes ${step2.color}.`);
  if (step1) {
    return inputRequired({
      inputRequests: { step2: ask("Step 2: What is your favorite color?", strings("color")) },
      requestState: await rounds.mint({ name: step1.name ?? "" }),
    });
  }
  return inputRequired({
    inputRequests: { step1: ask("Step 1: What is your name?", strings("name")) },
    requestState: await rounds.mint({}),
  });
}

const messages = (...contents) => ({
  messages: contents.map((content) => ({ role: "user", content })),
});

/** All prompts: name, what it is, its arguments, and how it is made. */
const prompts = [
  [
    "test_simple_prompt",
    "Text alone",
    undefined,
    () => messages(text("This is a simple prompt for testing.")),
  ],
  [
    "test_prompt_with_arguments",
    "Text with two arguments",
    z.object({
      arg1: completable(z.string().describe("First test argument"), (start) =>
        ["paris", "park", "party"].filter((word) => word.startsWith(start)),
      ),
      arg2: z.string().describe("Second test argument"),
    }),
    ({ arg1, arg2 }) => messages(text(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`)),
  ],
  [
    "test_prompt_with_embedded_resource",
    "A resource and text",
    z.object({ resourceUri: z.string().describe("URI of the resource to embed") }),
    ({ resourceUri }) =>
      messages(
        resource(resourceUri, "text/plain", "Embedded resource content for testing."),
        text("Please process the embedded resource above."),
      ),
  ],
  [
    "test_prompt_with_image",
    "An image and text",
    undefined,
    () => messages(image, text("Please analyze the image above.")),
  ],
  [
    "test_input_required_result_prompt",
    "Asks before it answers",
    undefined,
    (ctx) => {
      const content = accepted(ctx, "user_context");
      if (content) return messages(text(`Context: ${content.context}`));
      const question = ask("What context should the prompt use?", strings("context"));
      return inputRequired({ inputRequests: { user_context: question } });
    },
  ],
];

/** All resources: name, URI, type, and what stands in it. */
const resources = [
  [
    "static-text",
    "test://static-text",
    "text/plain",
    { text: "This is the content of the static text resource." },
  ],
  ["static-binary", "test://static-binary", "image/png", { blob: PNG }],
  ["watched-resource", "test://watched-resource", "text/plain", { text: "Watch me." }],
];

/** Gives the server everything. `notify` tells whoever listens of a change. */
export function offer(server, notify) {
  for (const [name, description, schema, act] of tools(server, notify)) {
    server.registerTool(name, { description, inputSchema: fromJsonSchema(schema) }, act);
  }
  for (const [name, description, argsSchema, make] of prompts) {
    server.registerPrompt(name, { description, argsSchema }, make);
  }
  for (const [name, uri, mimeType, body] of resources) {
    server.registerResource(name, uri, { description: `${name} for tests`, mimeType }, () => ({
      contents: [{ uri, mimeType, ...body }],
    }));
  }
  const template = new ResourceTemplate("test://template/{id}/data", { list: undefined });
  const mimeType = "application/json";
  const shape = { description: "One item by its number", mimeType };
  server.registerResource("template", template, shape, (uri, { id }) => {
    const text = JSON.stringify({ id, templateTest: true, data: `Data for ID: ${id}` });
    return { contents: [{ uri: uri.href, mimeType, text }] };
  });
}
