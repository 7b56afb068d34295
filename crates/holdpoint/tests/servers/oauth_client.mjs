// The official TypeScript client going the whole way: discovery, a user's agreement, a token, a
// call; then a call that needs more, and the way again for the wider scope.
//
//   node oauth_client.mjs MODULES URL FILE
//
// MODULES is the folder with the client's package. Writes one JSON object on standard output.
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [modules, url, file] = process.argv.slice(2);
const sdk = (path) => import(pathToFileURL(resolve(modules, "@modelcontextprotocol/sdk/dist/esm", path)));
const { Client } = await sdk("client/index.js");
const { StreamableHTTPClientTransport } = await sdk("client/streamableHttp.js");
const { UnauthorizedError } = await sdk("client/auth.js");

const CALLBACK = "http://127.0.0.1:1/callback";
const kept = {};
const asked = [];
let code;

/** What a browser does between the client and the issuer: follow, with cookies, to the callback. */
async function browse(from) {
  const cookies = new Map();
  let next = String(from);
  for (let steps = 0; steps < 20 && !next.startsWith(CALLBACK); steps += 1) {
    const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join("; ");
    const answer = await fetch(next, { redirect: "manual", headers: { cookie } });
    for (const set of answer.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(set);
      cookies.set(name, value);
    }
    const location = answer.headers.get("location");
    if (!location) throw new Error(`${answer.status} ${await answer.text()}`);
    next = String(new URL(location, next));
  }
  const given = new URL(next).searchParams.get("code");
  if (!given) throw new Error(`no code: ${next}`);
  return given;
}

const authProvider = {
  redirectUrl: CALLBACK,
  clientMetadata: { client_name: "test", redirect_uris: [CALLBACK] },
  clientInformation: () => ({ client_id: "user-client" }),
  tokens: () => kept.tokens,
  saveTokens: (tokens) => void (kept.tokens = tokens),
  codeVerifier: () => kept.verifier,
  saveCodeVerifier: (verifier) => void (kept.verifier = verifier),
  redirectToAuthorization: async (to) => {
    asked.push({ scope: to.searchParams.get("scope"), resource: to.searchParams.get("resource") });
    code = await browse(to);
  },
};

async function connected() {
  for (;;) {
    const transport = new StreamableHTTPClientTransport(new URL(url), { authProvider });
    const client = new Client({ name: "test", version: "1" });
    try {
      await client.connect(transport);
      return { client, transport };
    } catch (fault) {
      if (!(fault instanceof UnauthorizedError) || asked.length > 2) throw fault;
      await transport.finishAuth(code);
    }
  }
}

const { client, transport } = await connected();
const echo = () => client.callTool({ name: "echo", arguments: { text: "hi" } });
const before = await echo();
const touch = () => client.callTool({ name: "touch", arguments: { path: file } });
let touched;
try {
  touched = await touch();
} catch (fault) {
  if (!(fault instanceof UnauthorizedError)) throw fault;
  await transport.finishAuth(code);
  touched = await touch();
}
console.log(JSON.stringify({ asked, before, touched, after: await echo() }));
process.exit(0);
